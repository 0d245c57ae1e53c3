//! Work on many crops in several threads, while further crops are read.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};

/// Crops that are read at the same time, and that wait for a thread.
const READERS: usize = 16;

/// Why a crop cannot be read.
#[derive(Debug)]
pub enum CropFault {
    /// This crop alone: it is missing, for example.
    Crop(String),
    /// The store: all further reads fail, too.
    Store(String),
}

#[derive(Debug, thiserror::Error)]
pub enum CropThreadsError {
    /// The store of the crops is unavailable or refuses.
    #[error("cannot read the crops: {0}")]
    Read(String),
    #[error("a thread that works on crops has ended: {0}")]
    Thread(#[from] JoinError),
}

/// Does `work` on the crops at these `places`, with one worker for each thread. `read` returns the file of a crop, and
/// `take` receives each result, in any order. A crop that cannot be read has its fault as result.
///
/// # Errors
/// The store of the crops fails, a thread panics, or `take` fails.
pub async fn each_crop<W, T, F, E>(
    places: Vec<usize>,
    workers: Vec<W>,
    read: impl Fn(usize) -> F,
    work: impl Fn(&mut W, usize, &[u8]) -> Result<T, String> + Clone + Send + 'static,
    mut take: impl FnMut(usize, Result<T, String>) -> Result<(), E>,
) -> Result<(), E>
where
    W: Send + 'static,
    T: Send + 'static,
    F: Future<Output = Result<Bytes, CropFault>>,
    E: From<CropThreadsError>,
{
    let (crop_sender, crop_receiver) = mpsc::channel::<(usize, Bytes)>(READERS);
    let (sender, mut receiver) = mpsc::channel(READERS);
    let crop_receiver = Arc::new(Mutex::new(crop_receiver));
    let mut threads = Vec::new();
    for mut worker in workers {
        let (crops, sender, work) = (crop_receiver.clone(), sender.clone(), work.clone());
        threads.push(spawn_blocking(move || {
            let next = || crops.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
            while let Some((i, bytes)) = next() {
                if sender.blocking_send((i, work(&mut worker, i, &bytes))).is_err() {
                    return;
                }
            }
        }));
    }
    drop(crop_receiver);
    let reads = async {
        let reads = stream::iter(places).map(|i| {
            let crop = read(i);
            async move { (i, crop.await) }
        });
        let mut reads = std::pin::pin!(reads.buffer_unordered(READERS));
        while let Some((i, crop)) = reads.next().await {
            let sent = match crop {
                Ok(bytes) => crop_sender.send((i, bytes)).await.is_ok(),
                Err(CropFault::Crop(detail)) => sender.send((i, Err(detail))).await.is_ok(),
                Err(CropFault::Store(detail)) => return Err(E::from(CropThreadsError::Read(detail))),
            };
            if !sent {
                break;
            }
        }
        drop((crop_sender, sender));
        Ok(())
    };
    let results = async {
        while let Some((i, result)) = receiver.recv().await {
            take(i, result)?;
        }
        Ok(())
    };
    futures::future::try_join(reads, results).await?;
    for thread in threads {
        thread.await.map_err(CropThreadsError::from)?;
    }
    Ok(())
}
