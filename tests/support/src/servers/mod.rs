//! Real servers that a test starts.

pub mod chromium;
pub mod cpu;
pub mod process;
pub mod rabbitmq;
pub mod redis;
pub mod seaweedfs;
