//! The command that continues what a signal has interrupted: the one that was typed.

use std::ffi::OsString;

/// This command, quoted for a shell. Credentials among the flags are left out.
pub fn this_command() -> String {
    quoted(std::env::args_os())
}

fn quoted(arguments: impl Iterator<Item = OsString>) -> String {
    let mut words = Vec::new();
    let mut is_secret = false;
    for argument in arguments {
        let word = argument.to_string_lossy();
        let (flag, value) = word.split_once('=').map_or((&*word, None), |(flag, value)| (flag, Some(value)));
        let hides = flag.starts_with("--aws-") || flag == "--hosts";
        words.push(match (is_secret, value) {
            (true, _) => "...".to_owned(),
            (false, Some(_)) if hides => format!("{flag}=..."),
            _ => quote(&word),
        });
        is_secret = !is_secret && hides && value.is_none();
    }
    words.join(" ")
}

fn quote(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,./:@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_the_same_arguments() {
        let arguments = ["printf", "%s\\n", "a b", "", "O'Neill", "$HOME", "*", "--limit=40", "ü", "~", "a\nb", "!x"];
        let command = quoted(arguments.iter().map(Into::into));
        let printed = Command::new("sh").args(["-c", &command]).output().unwrap().stdout;
        assert_eq!(String::from_utf8(printed).unwrap(), arguments[2..].join("\n") + "\n", "{command}");
    }

    #[test]
    fn credentials_are_left_out() {
        let arguments = ["facemill", "run", "--aws-access-key-id", "A", "--aws-secret-access-key=B", "s3://b/k"];
        let expected = "facemill run --aws-access-key-id ... --aws-secret-access-key=... s3://b/k";
        assert_eq!(quoted(arguments.iter().map(Into::into)), expected);
    }
}
