//! `facemill users`.

use std::fmt::Write;
use std::io::{self, BufRead, IsTerminal};
use std::process::ExitCode;

use serde::Serialize;
use zeroize::Zeroizing;

use crate::cli::failure::Failure;
use crate::cli::output::{print_json, print_text};
use crate::cli::settings::store::StoreArgs;
use crate::domain::{Role, UserName, calendar};
use crate::services::passwords::Password;
use crate::services::users::Accounts;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Adds a user. Reads the password from the terminal, or one line from standard input
    Add {
        #[arg(value_name = "NAME")]
        name: UserName,
        /// viewer: sees everything; curator: judges, too
        #[arg(long, value_name = "ROLE", default_value_t = Role::Curator)]
        role: Role,
        /// The user has no password and signs in through a reverse proxy only
        #[arg(long)]
        without_password: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Lists the users
    List {
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Removes a user and ends the user's sessions. The verdicts stay
    Remove {
        #[arg(value_name = "NAME")]
        name: UserName,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Sets another password and ends the user's sessions
    Passwd {
        #[arg(value_name = "NAME")]
        name: UserName,
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// A user, as it is printed.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    name: &'a UserName,
    role: Role,
    has_password: bool,
    /// Seconds since 1970, UTC.
    added_at: u64,
    password_at: u64,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    crate::cli::process::block_on(async {
        match &args.action {
            Action::Add { name, role, without_password, store } => {
                let accounts = accounts(store).await?;
                let password = if *without_password { None } else { Some(read_password(name)?) };
                accounts.add(name, *role, password).await.map_err(Failure::broken)?;
                done(store, name, &format!("added {name}, {role}"))
            }
            Action::List { store } => list(store).await,
            Action::Remove { name, store } => {
                accounts(store).await?.remove(name).await.map_err(Failure::broken)?;
                done(store, name, &format!("removed {name}; the verdicts of {name} stay"))
            }
            Action::Passwd { name, store } => {
                let accounts = accounts(store).await?;
                let password = read_password(name)?;
                accounts.set_password(name, password).await.map_err(Failure::broken)?;
                done(store, name, &format!("set the password of {name} and ended all sessions of {name}"))
            }
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn accounts(store: &StoreArgs) -> Result<Accounts, Failure> {
    Ok(Accounts::new(store.open().await?))
}

fn done(store: &StoreArgs, name: &UserName, text: &str) -> Result<(), Failure> {
    match store.json {
        true => print_json(&serde_json::json!({ "name": name })),
        false => print_text(&format!("{text}\n")),
    }
}

async fn list(store: &StoreArgs) -> Result<(), Failure> {
    let users = accounts(store).await?.all().await.map_err(Failure::broken)?.users;
    let shown: Vec<Shown<'_>> = users
        .iter()
        .map(|(name, user)| Shown {
            name,
            role: user.role,
            has_password: user.password.is_some(),
            added_at: user.added_at,
            password_at: user.password_at,
        })
        .collect();
    if store.json {
        return print_json(&shown);
    }
    let width = shown.iter().map(|user| user.name.as_str().len()).max().unwrap_or(0);
    let mut text = String::new();
    for user in &shown {
        let name = user.name.as_str();
        let password = match user.has_password {
            true => format!("password of {}", calendar::second(user.password_at)),
            false => "no password: signs in through a reverse proxy".to_owned(),
        };
        let _ = writeln!(text, "{name:<width$}  {:<8} {password}", user.role.as_str());
    }
    if shown.is_empty() {
        text.push_str("no users yet: `facemill users add NAME` adds one\n");
    }
    print_text(&text)
}

/// Asks on the terminal, twice and without echo, or reads one line from standard input.
fn read_password(name: &UserName) -> Result<Password, Failure> {
    let text = match io::stdin().is_terminal() {
        true => {
            let ask = |prompt: String| rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(unreadable);
            let first = ask(format!("Password of {name}: "))?;
            let again = ask("The same again: ".to_owned())?;
            if first != again {
                return Err(Failure::broken("the two passwords differ: nothing was changed"));
            }
            first
        }
        false => read_line(io::stdin().lock()).map_err(unreadable)?,
    };
    Password::new(text).map_err(Failure::broken)
}

fn unreadable(error: io::Error) -> Failure {
    Failure::broken(format!("cannot read the password: {error}"))
}

/// The first line, without its end. The rest is not read.
fn read_line(from: impl BufRead) -> io::Result<Zeroizing<String>> {
    // Longer than any password, so that a wrong file fails for its length.
    let mut line = Zeroizing::new(String::with_capacity(2 * Password::MOST));
    from.take(2 * Password::MOST as u64).read_line(&mut line)?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_first_line() {
        for (input, line) in [("a b \nc", "a b "), ("a\r\n", "a"), ("a", "a"), ("", "")] {
            assert_eq!(read_line(input.as_bytes()).unwrap().as_str(), line);
        }
        assert_eq!(read_line("x".repeat(1 << 20).as_bytes()).unwrap().len(), 512);
    }
}
