//! The byte stream to RabbitMQ, plain or encrypted.
//!
//! lapin's own TLS brings readers of certificate containers that nothing here needs. This one trusts what all other
//! connections of the program trust.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures::Stream;
use futures::io::{AsyncRead, AsyncWrite};
use lapin::AsyncTcpStream;
use lapin::uri::{AMQPScheme, AMQPUri};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use tokio_util::either::Either;

/// A connected stream: without TLS, or with it.
type Transport = Compat<Either<TcpStream, TlsStream<TcpStream>>>;

/// Tokio, except that streams are transports.
#[derive(Debug, Clone)]
pub(super) struct Transports(Tokio);

impl Transports {
    /// The runtime for a connection, on the Tokio runtime of the caller.
    pub fn runtime() -> Runtime<RuntimeParts<Tokio, Self>> {
        Runtime::new(RuntimeParts::new(Tokio::current(), Self(Tokio::current())))
    }
}

/// Connects to the host of the address, with TLS for `amqps`.
///
/// # Errors
/// The host cannot be reached, or does not prove with a trusted certificate that it has this name.
pub(super) async fn connect(uri: &AMQPUri) -> lapin::Result<AsyncTcpStream<Transport>> {
    let (host, port) = (uri.authority.host.as_str(), uri.authority.port);
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let stream = match uri.scheme {
        AMQPScheme::AMQP => Either::Left(stream),
        AMQPScheme::AMQPS => Either::Right(encrypted(host, stream).await?),
    };
    Ok(AsyncTcpStream::Plain(stream.compat()))
}

async fn encrypted(host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let config = crate::tls::client_config(None).map_err(io::Error::other)?;
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

impl Reactor for Transports {
    type TcpStream = Transport;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = TcpStream::connect(address);
        async move { Ok(Either::Left(connecting.await?).compat()) }
    }
}
