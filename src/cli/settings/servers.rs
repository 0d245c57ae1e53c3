//! The flags for the servers of an installation.

use std::sync::Arc;

use clap::Args;

use crate::broker::rabbitmq::{self, RabbitMq};
use crate::cli::failure::Failure;
use crate::ledger::redis::Redis;
use crate::objects::s3::{self, S3};
use crate::redis::{RedisClient, RedisSettings};
use crate::services::servers::Servers;

/// RabbitMQ, Redis and S3.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// RabbitMQ: amqp(s)://user:password@host:port/vhost
    #[arg(long, env = "FACEMILL_AMQP_URL", hide_env_values = true, value_name = "URL", help_heading = "Servers")]
    amqp: Option<String>,
    /// RabbitMQ's management API, for the numbers of messages in flight: http(s)://user:password@host:port
    #[arg(
        long,
        env = "FACEMILL_AMQP_MANAGEMENT",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Servers"
    )]
    amqp_management: Option<String>,
    /// Redis: redis(s)://user:password@host:port/db
    #[arg(long, env = "FACEMILL_REDIS_URL", hide_env_values = true, value_name = "URL", help_heading = "Servers")]
    redis: Option<String>,
    /// The S3 bucket
    #[arg(long, env = "FACEMILL_S3_BUCKET", value_name = "NAME", help_heading = "Servers")]
    bucket: Option<String>,
    /// Prefix of all object keys, so that installations can share a bucket [default: none]
    #[arg(long, env = "FACEMILL_S3_PREFIX", value_name = "NAME", help_heading = "Servers")]
    s3_prefix: Option<s3::Prefix>,
    #[command(flatten)]
    pub s3: S3Args,
    /// Prefix of queues and Redis keys, so that installations can share servers; for objects see --s3-prefix
    #[arg(long, env = "FACEMILL_PREFIX", default_value = "facemill", value_name = "NAME", help_heading = "Servers")]
    prefix: String,
}

/// The S3 service, without a bucket.
#[derive(Debug, Clone, Args)]
pub struct S3Args {
    /// An S3 service other than Amazon's: http(s)://host:port [default: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or the profile's]
    #[arg(long, env = "FACEMILL_S3_ENDPOINT", hide_env_values = true, value_name = "URL", help_heading = "Servers")]
    s3_endpoint: Option<String>,
    /// The bucket's region [default: the profile's, else us-east-1]
    #[arg(long, env = "AWS_REGION", value_name = "NAME", help_heading = "Servers")]
    region: Option<String>,
    /// Key for the bucket [default: as the AWS tools find it: profile, web identity, metadata of container or instance]
    #[arg(long, env = "AWS_ACCESS_KEY_ID", hide_env_values = true, value_name = "KEY", help_heading = "Servers")]
    aws_access_key_id: Option<String>,
    /// Prefer the environment: other users of the machine can see flags
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true, value_name = "KEY", help_heading = "Servers")]
    aws_secret_access_key: Option<String>,
    /// Session token of temporary credentials
    #[arg(long, env = "AWS_SESSION_TOKEN", hide_env_values = true, value_name = "TOKEN", help_heading = "Servers")]
    aws_session_token: Option<String>,
}

impl S3Args {
    /// A client of the service, for any bucket.
    pub fn service(&self) -> Result<S3, String> {
        self.settings("").map(S3::new)
    }

    fn settings(&self, bucket: &str) -> Result<s3::S3Settings, String> {
        let keys = s3::Keys::from_env(|name| match name {
            "AWS_ACCESS_KEY_ID" => self.aws_access_key_id.clone(),
            "AWS_SECRET_ACCESS_KEY" => self.aws_secret_access_key.clone(),
            "AWS_SESSION_TOKEN" => self.aws_session_token.clone(),
            _ => None,
        })?;
        let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        let (region, endpoint) = (given(&self.region), given(&self.s3_endpoint));
        s3::S3Settings::complete(bucket, s3::GivenService { keys, region, endpoint })
    }
}

impl ServerArgs {
    /// Whether any server is configured.
    pub fn are_given(&self) -> bool {
        self.redis.is_some()
    }

    /// The client of each server, or the fault of its settings.
    pub fn each(&self) -> (Result<RabbitMq, String>, Result<Redis, String>, Result<S3, String>) {
        (self.broker(), self.redis_client().map(Redis::new), self.objects())
    }

    /// Reports all faults, not only the first. Does not connect.
    pub fn clients(&self) -> Result<Servers, Failure> {
        match (self.broker(), self.redis_client(), self.objects()) {
            (Ok(broker), Ok(ledger), Ok(objects)) => {
                Ok(Servers { broker, ledger: Arc::new(Redis::new(ledger)), objects })
            }
            (broker, ledger, objects) => {
                let mut faults: Vec<String> =
                    [broker.err(), ledger.err(), objects.err()].into_iter().flatten().collect();
                // RabbitMQ and Redis report the same fault of the prefix.
                faults.dedup();
                Err(Failure::usage(format!("settings of servers are missing or wrong:\n  {}", faults.join("\n  "))))
            }
        }
    }

    /// Whether an object store is configured.
    pub fn store_is_given(&self) -> bool {
        self.are_given() || self.bucket.is_some()
    }

    /// A client of the object store only.
    pub fn objects_only(&self) -> Result<S3, Failure> {
        self.objects().map_err(Failure::usage)
    }

    /// A client of Redis only.
    pub fn redis(&self) -> Result<Arc<RedisClient>, Failure> {
        self.redis_client().map_err(Failure::usage)
    }

    /// The faults of the settings that are given. Missing settings are no faults here.
    pub fn faults(&self) -> Vec<String> {
        let broker = self.amqp.is_some().then(|| self.broker().err());
        let ledger = self.redis.is_some().then(|| self.redis_client().err());
        broker.into_iter().chain(ledger).flatten().collect()
    }

    fn broker(&self) -> Result<RabbitMq, String> {
        let missing = "--amqp or FACEMILL_AMQP_URL: the URL of RabbitMQ, amqp://user:password@host:5672/vhost";
        let url = self.amqp.as_ref().ok_or(missing)?;
        let mut settings = rabbitmq::RabbitMqSettings::new(url).map_err(|error| format!("--amqp: {error}"))?;
        settings = settings.with_prefix(&self.prefix).map_err(|error| format!("--prefix: {error}"))?;
        if let Some(url) = &self.amqp_management {
            settings = settings.with_management(url).map_err(|error| format!("--amqp-management: {error}"))?;
        }
        RabbitMq::new(settings).map_err(|error| format!("--amqp: {error}"))
    }

    fn redis_client(&self) -> Result<Arc<RedisClient>, String> {
        let missing = "--redis or FACEMILL_REDIS_URL: the URL of Redis, redis://host:6379";
        let url = self.redis.as_ref().ok_or(missing)?;
        rabbitmq::RabbitMqSettings::check_prefix(&self.prefix).map_err(|error| format!("--prefix: {error}"))?;
        let settings = RedisSettings { prefix: self.prefix.clone(), ..RedisSettings::new(url) };
        RedisClient::new(settings).map(Arc::new).map_err(|error| format!("--redis: {error}"))
    }

    fn objects(&self) -> Result<S3, String> {
        let bucket =
            self.bucket.as_ref().ok_or("--bucket or FACEMILL_S3_BUCKET: the bucket for originals and faces")?;
        s3::check_bucket(bucket).map_err(|error| format!("--bucket: {error}"))?;
        Ok(S3::new(s3::S3Settings {
            prefix: self.s3_prefix.as_ref().map_or("", s3::Prefix::as_str).into(),
            ..self.s3.settings(bucket)?
        }))
    }
}
