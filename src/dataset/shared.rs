//! One index for many readers and a writer of one process.

use std::any::Any;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::index::{Index, IndexError};

/// Access to an index, one piece of work at a time.
pub trait IndexAccess: Send {
    fn call<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Index) -> Result<T, IndexError> + Send + 'static,
    ) -> impl Future<Output = Result<T, IndexError>> + Send;
}

/// The owner of an index does the work itself.
impl IndexAccess for Index {
    async fn call<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Index) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, IndexError> {
        work(self)
    }
}

type Work = Box<dyn FnOnce(&mut Index) -> Box<dyn Any + Send> + Send>;

/// An index that tasks share. Clones refer to the same index. Work is done in the order in which it is asked for, on a
/// thread for blocking work.
#[derive(Clone)]
pub struct SharedIndex(Arc<Mutex<Index>>);

impl SharedIndex {
    pub fn new(index: Index) -> Self {
        Self(Arc::new(Mutex::new(index)))
    }

    /// Does a piece of work. It is finished even if the caller does not wait for it.
    ///
    /// # Panics
    /// The work panics.
    pub async fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut Index) -> T + Send + 'static) -> T {
        let done = self.run(Box::new(|index| Box::new(work(index)))).await;
        *done.downcast().expect("the work returns this type")
    }

    /// [`SharedIndex::with`] for every kind of work: each would be a kind of task for the runtime, whose code is large.
    async fn run(&self, work: Work) -> Box<dyn Any + Send> {
        let mut index = self.0.clone().lock_owned().await;
        match spawn_blocking(move || work(&mut index)).await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(done) => done,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The process ends.
            Err(Err(_)) => std::future::pending().await,
        }
    }
}

impl IndexAccess for SharedIndex {
    fn call<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Index) -> Result<T, IndexError> + Send + 'static,
    ) -> impl Future<Output = Result<T, IndexError>> + Send {
        self.with(work)
    }
}
