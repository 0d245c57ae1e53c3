//! Who may see and judge.
//!
//! People sign in with a password and get a session, or a reverse proxy names them in a header. Without users the server
//! is for the person at this machine, and listens on a loopback address only.

mod client;
mod cookie;
mod directory;
mod guard;
mod headers;
mod person;
mod protect;
mod rates;
mod sign_in;
mod state;

pub use person::{Curator, Person};
pub use protect::protect;
pub use sign_in::{sign_in, sign_out};
pub use state::{Access, AccessError, AccessSettings, ProxyHeader};
