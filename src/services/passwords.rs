//! Passwords and their hashes: argon2id with 19 MiB of memory and two passes, as OWASP recommends
//! (<https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>).
//!
//! Hashing takes tens of milliseconds: call it on a thread for blocking work.

use std::fmt;
use std::sync::OnceLock;

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use zeroize::Zeroizing;

/// A password that a user chose. It is cleared from memory when it is dropped.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPassword {
    #[error("the password has {0} characters: expected {least} or more", least = Password::LEAST)]
    Short(usize),
    #[error("the password has more than {most} bytes", most = Password::MOST)]
    Long,
    #[error("the password has a control character")]
    Control,
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot hash the password: {0}")]
pub struct HashError(String);

impl Password {
    /// Characters of a new password.
    pub const LEAST: usize = 12;
    /// Bytes of a password. A longer one only costs time.
    pub const MOST: usize = 256;

    /// A new password, which must be long enough.
    pub fn new(text: Zeroizing<String>) -> Result<Self, BadPassword> {
        let length = text.chars().count();
        if length < Self::LEAST {
            Err(BadPassword::Short(length))
        } else if text.len() > Self::MOST {
            Err(BadPassword::Long)
        } else if text.chars().any(char::is_control) {
            Err(BadPassword::Control)
        } else {
            Ok(Self(text))
        }
    }

    /// The hash with a random salt, in PHC format: `$argon2id$v=19$m=19456,t=2,p=1$...`.
    pub fn hash(&self) -> Result<String, HashError> {
        hash(self.0.as_bytes())
    }
}

fn hash(password: &[u8]) -> Result<String, HashError> {
    let hashed = Argon2::default().hash_password(password);
    hashed.map(|hash| hash.to_string()).map_err(|error| HashError(error.to_string()))
}

/// Whether the password has this hash. Without a hash it does the same work and returns false, so that nobody can tell
/// from the time which users exist.
pub fn verify(password: &str, hash_of_user: Option<&str>) -> bool {
    static OF_NOBODY: OnceLock<Option<String>> = OnceLock::new();
    if password.len() > Password::MOST {
        return false;
    }
    let nobody = || OF_NOBODY.get_or_init(|| hash(b"nobody").ok()).as_deref();
    let Some(hash) = hash_of_user.or_else(nobody) else { return false };
    let is_right = Argon2::default().verify_password(password.as_bytes(), hash).is_ok();
    is_right && hash_of_user.is_some()
}

/// Computes what [`verify`] compares with for unknown users, so that the first of them takes no longer than the next.
pub fn warm_up() {
    verify("", None);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Result<Password, BadPassword> {
        Password::new(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn only_the_password_has_its_hash() {
        let hash = password("correct horse").unwrap().hash().unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(password("correct horse").unwrap().hash().unwrap(), hash, "every hash has a salt of its own");
        assert!(verify("correct horse", Some(&hash)));
        for wrong in ["", "correct horsf", "correct horse ", "nobody", &"x".repeat(100_000)] {
            assert!(!verify(wrong, Some(&hash)), "{wrong}");
            assert!(!verify(wrong, None), "{wrong}");
        }
        assert!(!verify("correct horse", Some("not a hash")));
        assert!(!verify("", Some("")));
    }

    #[test]
    fn new_passwords_have_a_least_length() {
        assert_eq!(password("eleven char").err(), Some(BadPassword::Short(11)));
        assert!(password("パスワードは十二文字以上").is_ok());
        assert_eq!(password(&"x".repeat(257)).err(), Some(BadPassword::Long));
        assert_eq!(password("twelve chars\n").err(), Some(BadPassword::Control));
        assert_eq!(format!("{:?}", password("correct horse")), "Ok(Password(***))");
    }
}
