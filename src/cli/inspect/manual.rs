//! `facemill completions` and `facemill man`: made from the same definition of the command line as `--help`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::atomic_file::AtomicFile;
use crate::cli::failure::Failure;
use crate::cli::output::print_text;

#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell that reads them: `facemill completions bash > ~/.local/share/bash-completion/completions/facemill`
    shell: CompletedShell,
}

/// The shells with completions.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum CompletedShell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The command, such as `work` or `dead list` [default: the page of the whole program]
    #[arg(value_name = "COMMAND", conflicts_with = "to")]
    path: Vec<String>,
    /// Writes the pages of all commands into this folder, such as /usr/local/share/man/man1
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// `root`: the whole command line.
pub fn completions(args: &CompletionsArgs, mut root: Command) -> Result<ExitCode, Failure> {
    let shell = match args.shell {
        CompletedShell::Bash => Shell::Bash,
        CompletedShell::Zsh => Shell::Zsh,
        CompletedShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut root, "facemill", &mut script);
    print_text(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// `root`: the whole command line.
pub fn man(args: &ManArgs, root: Command) -> Result<ExitCode, Failure> {
    let root = root.disable_help_subcommand(true);
    if let Some(folder) = &args.to {
        write_all(&root, "facemill", folder)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (mut command, mut name) = (&root, "facemill".to_owned());
    for word in &args.path {
        command = command.find_subcommand(word).ok_or_else(|| Failure::usage(format!("{name} has no {word}")))?;
        name.push_str(&format!("-{word}"));
    }
    print_text(&String::from_utf8_lossy(&page(command, &name).map_err(Failure::broken)?))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of a command and of all below it: `facemill-dead-list.1`.
fn write_all(command: &Command, name: &str, folder: &Path) -> Result<(), Failure> {
    let path = folder.join(format!("{name}.1"));
    let written = page(command, name).and_then(|page| AtomicFile::write(&path, &page));
    written.map_err(|error| Failure::broken(format!("cannot write {}: {error}", path.display())))?;
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown.into_iter().try_for_each(|below| write_all(below, &format!("{name}-{}", below.get_name()), folder))
}

fn page(command: &Command, name: &str) -> io::Result<Vec<u8>> {
    let command = command.clone().name(name.to_owned()).bin_name(name.replace('-', " "));
    let mut page = Vec::new();
    Man::new(command.disable_help_subcommand(true)).title(name).manual("facemill").render(&mut page)?;
    Ok(page)
}
