//! Work whose spans belong in no trace.

use std::sync::LazyLock;

use tracing::Dispatch;
use tracing::subscriber::NoSubscriber;

/// A subscriber that gets nothing. Not `Dispatch::none()`, which is not registered: in a process with one subscriber, a
/// span that is first made under it would be disabled for good, everywhere.
pub static SILENT: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));
