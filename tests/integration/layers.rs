//! Reads the imports of every file in `src`: they point to lower layers only, and never in a circle.
//!
//! Comments, strings and `#[cfg(test)]` items do not count. A `pub use` of a module's own parts is an export, not an
//! import, unless the file uses the name itself; an import through it counts as an import of the file behind it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The modules of `src` from the top down. A module imports only from layers below its own.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["curation", "export", "report", "demo"],
    &["services"],
    &["web", "training", "similarity", "capacity"],
    &["pipeline"],
    &["versions"],
    &["dataset"],
    &["archive"],
    &["verdicts", "ledger", "cluster"],
    &["broker", "objects", "net", "source", "classifier"],
    &["vision"],
    &["hog", "inference", "redis", "sqlite", "telemetry"],
    &["atomic_file", "tls", "retry", "server_error", "error_chain", "memory"],
    &["domain"],
];

#[test]
fn imports_point_down_and_never_in_a_circle() {
    let mut sources = Vec::new();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    read_sources(&src, &src, &mut sources);
    let faults = faults(&sources);
    assert!(faults.is_empty(), "wrong imports:\n{}", faults.join("\n"));
}

fn read_sources(root: &Path, folder: &Path, sources: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_sources(root, &path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            sources.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// A path from the root of the crate: `net`, `error`, `FetchError`.
type ItemPath = Vec<String>;

/// What a file imports and exports.
#[derive(Default)]
struct File {
    name: String,
    module: ItemPath,
    /// The folder of the crate: empty for `facemill`, else the name of a folder with a `lib.rs` of its own.
    root: ItemPath,
    /// The folders of all crates.
    crates: Vec<ItemPath>,
    /// Modules with a file of their own that this file declares, with whether they are for tests only.
    children: BTreeMap<String, bool>,
    /// With line numbers.
    imports: Vec<(usize, ItemPath)>,
    exports: HashMap<String, (usize, ItemPath)>,
    /// Every identifier outside of `use` statements.
    identifiers: HashSet<String>,
}

impl File {
    /// Parses the file `name`, a path below `src`. `crates` are the folders with a `lib.rs` of their own.
    fn parse(name: &str, text: &str, crates: &[&str]) -> Self {
        let parts =
            |path: &str| path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<ItemPath>();
        let within = |root: &&&str| name.strip_prefix(**root).is_some_and(|rest| rest.starts_with('/'));
        let root = crates.iter().filter(within).max_by_key(|root| root.len());
        let stem = name.strip_suffix(".rs").unwrap();
        let folder = stem.strip_suffix("/mod").or_else(|| stem.strip_suffix("/lib"));
        let module = parts(folder.unwrap_or(if stem == "lib" { "" } else { stem }));
        let root = parts(root.unwrap_or(&""));
        let crates = crates.iter().map(|root| parts(root)).collect();
        let mut file = Self { name: name.to_owned(), module, root, crates, ..Self::default() };
        let tokens = TokenStream::from_str(text).unwrap_or_else(|error| panic!("src/{name}: {error}"));
        let tokens: Vec<_> = tokens.into_iter().collect();
        file.declare_children(&tokens);
        let module = file.module.clone();
        file.walk(&tokens, &module);
        file
    }

    fn declare_children(&mut self, tokens: &[TokenTree]) {
        for (at, window) in tokens.windows(3).enumerate() {
            if is_ident(&window[0], "mod") && is_punct(&window[2], ';') {
                let start = if at > 0 && is_ident(&tokens[at - 1], "pub") { at - 1 } else { at };
                let for_tests = start >= 2 && is_test_attribute(&tokens[start - 2..start]);
                self.children.insert(window[1].to_string(), for_tests);
            }
        }
    }

    /// Collects imports and exports of a piece of `module`.
    fn walk(&mut self, tokens: &[TokenTree], module: &[String]) {
        let mut at = 0;
        let mut public = false;
        while let Some(token) = tokens.get(at) {
            let rest = &tokens[at..];
            match token {
                _ if is_test_attribute(rest) => at += test_item(rest),
                token if is_ident(token, "pub") => {
                    public = true;
                    at += 1;
                    // The restriction of `pub(in crate::x)` is no import.
                    at += usize::from(matches!(tokens.get(at), Some(TokenTree::Group(_))));
                    continue;
                }
                token if is_ident(token, "use") => {
                    let end = rest.iter().position(|token| is_punct(token, ';')).unwrap_or(rest.len());
                    let mut leaves = Vec::new();
                    parse_path(&rest[1..end], &[], &mut leaves);
                    leaves.into_iter().for_each(|leaf| self.note_use(leaf, module, public));
                    at += end;
                }
                token if is_ident(token, "mod") && matches!(rest.get(2), Some(TokenTree::Group(_))) => {
                    let Some(TokenTree::Group(body)) = rest.get(2) else { unreachable!() };
                    let inner = [module, &[rest[1].to_string()]].concat();
                    self.walk(&body.stream().into_iter().collect::<Vec<_>>(), &inner);
                    at += 3;
                }
                TokenTree::Ident(_) => {
                    let mut leaves = Vec::new();
                    at += parse_path(rest, &[], &mut leaves);
                    for leaf in leaves {
                        self.identifiers.extend(leaf.path.iter().cloned());
                        if leaf.path.len() > 1
                            && let Some(path) = self.absolute(&leaf.path, module)
                        {
                            self.imports.push((leaf.line, path));
                        }
                    }
                }
                TokenTree::Group(group) => {
                    self.walk(&group.stream().into_iter().collect::<Vec<_>>(), module);
                    at += 1;
                }
                _ => at += 1,
            }
            public = false;
        }
    }

    fn note_use(&mut self, leaf: Leaf, module: &[String], public: bool) {
        let Some(path) = self.absolute(&leaf.path, module) else { return };
        if public && let Some(name) = leaf.alias.or_else(|| path.last().cloned()) {
            self.exports.insert(name, (leaf.line, path));
        } else {
            self.imports.push((leaf.line, path));
        }
    }

    /// The path from `src`; nothing for a path into a crate of others.
    fn absolute(&self, path: &[String], module: &[String]) -> Option<ItemPath> {
        let (first, mut rest) = path.split_first()?;
        let mut base = module.to_vec();
        match first.as_str() {
            "crate" => base.clone_from(&self.root),
            "facemill" => base.clear(),
            "self" => {}
            "super" => drop(base.pop()),
            child if module == self.module && self.children.contains_key(child) => base.push(child.to_owned()),
            other => {
                let name = other.strip_prefix("facemill_")?;
                base.clone_from(self.crates.iter().find(|folder| folder.last().is_some_and(|last| last == name))?);
            }
        }
        while let Some((next, after)) = rest.split_first().filter(|(next, _)| *next == "super") {
            debug_assert_eq!(next, "super");
            base.pop();
            rest = after;
        }
        base.extend(rest.iter().filter(|segment| *segment != "self").cloned());
        Some(base)
    }

    /// All imports, and those exports that the file itself depends on.
    fn dependencies(&self) -> impl Iterator<Item = &(usize, ItemPath)> {
        let depends = |(name, (_, path)): &(&String, &(usize, ItemPath))| {
            !path.starts_with(&self.module) || self.identifiers.contains(*name)
        };
        self.imports.iter().chain(self.exports.iter().filter(depends).map(|(_, export)| export))
    }

    /// The modules from the outermost to the file itself.
    fn trail(&self) -> ItemPath {
        let own = match self.name.rsplit('/').next() {
            Some("lib.rs" | "mod.rs") => Some("mod.rs".to_owned()),
            _ => None,
        };
        self.module.iter().cloned().chain(own).collect()
    }
}

/// One path of a `use` tree.
struct Leaf {
    line: usize,
    path: ItemPath,
    alias: Option<String>,
}

/// Parses a path or a `use` tree at the start of `tokens`. Returns how many tokens it has.
fn parse_path(tokens: &[TokenTree], prefix: &[String], leaves: &mut Vec<Leaf>) -> usize {
    let mut path = prefix.to_vec();
    let mut at = usize::from(tokens.len() > 1 && is_path_separator(tokens)) * 2;
    let line = tokens.first().map_or(0, |token| token.span().start().line);
    while let Some(token) = tokens.get(at) {
        match token {
            TokenTree::Ident(ident) => {
                path.push(ident.to_string());
                at += 1;
            }
            TokenTree::Punct(star) if star.as_char() == '*' && at > 0 => {
                path.push("*".to_owned());
                at += 1;
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && (at > 0 || prefix.is_empty()) => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                for part in inner.split(|token| is_punct(token, ',')).filter(|part| !part.is_empty()) {
                    parse_path(part, &path, leaves);
                }
                return at + 1;
            }
            _ => break,
        }
        let more = matches!(tokens.get(at + 2), Some(TokenTree::Ident(_) | TokenTree::Group(_)))
            || tokens.get(at + 2).is_some_and(|token| is_punct(token, '*'));
        if !(more && is_path_separator(&tokens[at..])) {
            break;
        }
        at += 2;
    }
    let alias = tokens.get(at).filter(|token| is_ident(token, "as")).and_then(|_| tokens.get(at + 1));
    leaves.push(Leaf { line, path, alias: alias.map(ToString::to_string) });
    at.max(1)
}

fn is_ident(token: &TokenTree, name: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == name)
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

fn is_path_separator(tokens: &[TokenTree]) -> bool {
    tokens.len() > 1 && is_punct(&tokens[0], ':') && is_punct(&tokens[1], ':')
}

/// Whether the tokens start with `#[cfg(test)]`.
fn is_test_attribute(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [hash, TokenTree::Group(group), ..]
        if is_punct(hash, '#') && group.stream().to_string().replace(' ', "") == "cfg(test)")
}

/// The number of tokens of an attribute and its item.
fn test_item(tokens: &[TokenTree]) -> usize {
    let ends = |token: &TokenTree| {
        is_punct(token, ';') || matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
    };
    tokens.iter().position(ends).map_or(tokens.len(), |end| end + 1)
}

/// The files by the path of their module, without those that exist only in tests.
struct Files(BTreeMap<ItemPath, File>);

impl Files {
    fn parse(sources: &[(String, String)]) -> Self {
        let crates: Vec<_> = sources.iter().filter_map(|(name, _)| name.strip_suffix("/lib.rs")).collect();
        let files = sources.iter().map(|(name, text)| File::parse(name, text, &crates));
        let mut files: BTreeMap<_, _> = files.map(|file| (file.module.clone(), file)).collect();
        let only_tests: Vec<ItemPath> = files
            .values()
            .flat_map(|file| {
                let children = file.children.iter().filter(|(_, for_tests)| **for_tests);
                children.map(|(child, _)| [&file.module[..], std::slice::from_ref(child)].concat())
            })
            .collect();
        files.retain(|module, _| !only_tests.iter().any(|test| module.starts_with(test)));
        Self(files)
    }

    /// The file that defines an item: exports are followed.
    fn defining(&self, path: &[String]) -> Option<&File> {
        let mut path = path.to_vec();
        for _ in 0..16 {
            let length = (0..=path.len()).rev().find(|&length| self.0.contains_key(&path[..length]))?;
            let file = &self.0[&path[..length]];
            let export = path.get(length).and_then(|name| file.exports.get(name));
            let Some((_, exported)) = export else { return Some(file) };
            path = [exported, &path[length + 1..]].concat();
        }
        panic!("exports in a circle at {path:?}");
    }
}

/// Everything that is wrong with the imports of some files, given by their paths below `src` and their texts.
fn faults(sources: &[(String, String)]) -> Vec<String> {
    let files = Files::parse(sources);
    let mut faults = Vec::new();
    // For the modules and files of one folder: who imports whom, and where that is seen.
    let mut folders: BTreeMap<ItemPath, BTreeMap<String, BTreeMap<String, String>>> = BTreeMap::new();
    for file in files.0.values() {
        let from = file.trail();
        for (line, path) in file.dependencies() {
            let Some(target) = files.defining(path) else { continue };
            let to = target.trail();
            let Some(common) = (0..from.len().min(to.len())).find(|&at| from[at] != to[at]) else { continue };
            let place = format!("src/{}:{line}: imports `{}` of src/{}", file.name, path.join("::"), target.name);
            if common == 0
                && let Some(fault) = layer_fault(&from[0], &to[0])
            {
                faults.push(format!("{place}: {fault}"));
            }
            let folder = folders.entry(from[..common].to_vec()).or_default();
            folder.entry(from[common].clone()).or_default().entry(to[common].clone()).or_insert(place);
        }
    }
    faults.extend(folders.values().filter_map(circle));
    faults
}

fn layer_fault(from: &str, to: &str) -> Option<String> {
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    match (layer(from), layer(to)) {
        (None, _) => Some(format!("`{from}` is in no layer: add it to LAYERS")),
        (_, None) => Some(format!("`{to}` is in no layer: add it to LAYERS")),
        (Some(upper), Some(lower)) if upper >= lower => Some(format!("`{to}` is not in a layer below `{from}`")),
        _ => None,
    }
}

/// A circle among the imports of one folder.
fn circle(imports: &BTreeMap<String, BTreeMap<String, String>>) -> Option<String> {
    // What imports nothing that is left is in no circle.
    let mut left: BTreeSet<&String> = imports.keys().collect();
    while let Some(free) = left.iter().find(|from| imports[**from].keys().all(|to| !left.contains(to))).copied() {
        left.remove(free);
    }
    let mut trail: Vec<(&String, &String)> = Vec::new();
    let mut at = *left.first()?;
    loop {
        if let Some(start) = trail.iter().position(|(from, _)| *from == at) {
            let places: Vec<_> = trail[start..].iter().map(|(_, place)| place.as_str()).collect();
            return Some(format!("a circle:\n    {}", places.join("\n    ")));
        }
        let (to, place) = imports[at].iter().find(|(to, _)| left.contains(to))?;
        trail.push((at, place));
        at = to;
    }
}

#[cfg(test)]
mod checker {
    use super::*;

    fn check(sources: &[(&str, &str)]) -> Vec<String> {
        faults(&sources.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect::<Vec<_>>())
    }

    /// Checks a file in the middle among some others that import nothing.
    fn check_ledger(text: &str) -> Vec<String> {
        check(&[
            ("lib.rs", "pub mod broker; pub mod cli; pub mod domain; pub mod ledger; pub mod pipeline;"),
            ("broker/mod.rs", ""),
            ("cli/mod.rs", ""),
            ("cluster/mod.rs", ""),
            ("domain/mod.rs", "mod cause; pub use cause::Cause;"),
            ("domain/cause.rs", "pub struct Cause;"),
            ("ledger/mod.rs", text),
            ("pipeline/mod.rs", ""),
        ])
    }

    #[test]
    fn imports_from_lower_layers_are_right() {
        assert_eq!(check_ledger("use crate::domain::Cause;\nuse std::fmt;\nuse crate::broker;"), [""; 0]);
        assert_eq!(check(&[("main.rs", "fn main() { facemill::cli::main() }"), ("cli/mod.rs", "")]), [""; 0]);
    }

    #[test]
    fn an_import_from_above_is_reported_with_its_line() {
        for text in [
            "\nuse crate::pipeline::worker;",
            "\nuse crate::{domain::Cause, pipeline::Worker as Other};",
            "\npub use crate::pipeline::Worker;",
            "\nuse super::pipeline;",
            "\nfn f() { crate::pipeline::run() }",
            "\nfn f() -> super::pipeline::Worker { todo!() }",
            "\nfn f() { println!(\"{}\", crate::pipeline::NAME) }",
            "\nmod inner { use super::super::pipeline; }",
            "\npub(crate) fn f(x: &crate::pipeline::X) {}",
        ] {
            let faults = check_ledger(text);
            assert_eq!(faults.len(), 1, "{text}: {faults:?}");
            assert!(faults[0].starts_with("src/ledger/mod.rs:2: imports `pipeline"), "{faults:?}");
            assert!(faults[0].ends_with("`pipeline` is not in a layer below `ledger`"), "{faults:?}");
        }
    }

    #[test]
    fn crates_of_the_workspace_are_modules_too() {
        let check_vision = |text| {
            check(&[
                ("cli/lib.rs", ""),
                ("domain/lib.rs", "pub struct Face;"),
                (
                    "vision/lib.rs",
                    "mod align;\npub use facemill_rescale as rescale;\nuse align::cut;\npub struct Square;",
                ),
                ("vision/rescale/lib.rs", "mod light;\nuse crate::light::Light;"),
                ("vision/rescale/light.rs", ""),
                ("vision/align.rs", text),
            ])
        };
        assert_eq!(
            check_vision("use facemill_domain::Face;\nuse facemill_rescale::shrunk;\nuse image::RgbImage;"),
            [""; 0]
        );
        assert_eq!(check_vision("use facemill_cli::Cli;").len(), 1, "a layer above");
        assert_eq!(check_vision("use crate::Square;").len(), 1, "a circle with lib.rs");
    }

    #[test]
    fn modules_of_one_layer_do_not_import_each_other() {
        assert_eq!(check_ledger("use crate::cluster::Host;").len(), 1);
    }

    #[test]
    fn a_module_without_a_layer_is_reported() {
        let faults = check(&[("misc.rs", "use crate::domain::Cause;"), ("domain/mod.rs", "")]);
        assert!(faults[0].contains("`misc` is in no layer"), "{faults:?}");
    }

    #[test]
    fn comments_strings_and_tests_do_not_count() {
        for text in [
            "// use crate::pipeline;\n/// See [`crate::pipeline::Worker`].\nfn f() {}",
            "const TEXT: &str = \"use crate::pipeline;\";",
            "#[cfg(test)]\nmod tests { use crate::pipeline::Worker; }",
            "#[cfg(test)]\nuse crate::pipeline::Worker;",
            "#[cfg(test)]\n#[derive(Debug)]\nfn f() { crate::pipeline::run() }",
            "pub(in crate::pipeline) fn f() {}",
        ] {
            assert_eq!(check_ledger(text), [""; 0], "{text}");
        }
        let fixtures = [
            ("ledger/mod.rs", "#[cfg(test)]\nmod fixtures;"),
            ("ledger/fixtures.rs", "use crate::cli::Cli;"),
            ("cli/mod.rs", ""),
        ];
        assert_eq!(check(&fixtures), [""; 0]);
    }

    #[test]
    fn files_that_import_each_other_are_reported() {
        let faults = check(&[
            ("net/mod.rs", "mod a;\nmod b;\nmod c;"),
            ("net/a.rs", "use super::b::B;"),
            ("net/b.rs", "use super::c;"),
            ("net/c.rs", "\nuse crate::net::a::A;"),
        ]);
        assert_eq!(faults.len(), 1, "{faults:?}");
        for part in ["src/net/a.rs:1", "src/net/b.rs:1", "src/net/c.rs:2"] {
            assert!(faults[0].contains(part), "{faults:?}");
        }
    }

    #[test]
    fn folders_that_import_each_other_are_reported() {
        let faults = check(&[
            ("broker/mod.rs", ""),
            ("broker/a/one.rs", "use crate::broker::b::two;"),
            ("broker/a/two.rs", ""),
            ("broker/b/one.rs", "use super::super::a::two;"),
            ("broker/b/two.rs", ""),
        ]);
        assert_eq!(faults.len(), 1, "{faults:?}");
    }

    #[test]
    fn an_export_is_no_import_unless_the_file_uses_it() {
        let check_net = |text| check(&[("net/mod.rs", text), ("net/a.rs", "use super::Rules;")]);
        assert_eq!(check_net("mod a; pub use a::A; pub struct Rules;"), [""; 0]);
        assert_eq!(check_net("mod a; pub use a::A; pub struct Rules(A);").len(), 1);
        assert_eq!(check_net("mod a; use a::A; pub struct Rules;").len(), 1);
        assert_eq!(check_net("mod a; pub struct Rules(a::A);").len(), 1);
    }

    #[test]
    fn an_import_through_an_export_is_one_of_the_file_behind_it() {
        let faults = check(&[
            ("net/mod.rs", "mod a;\nmod b;\npub use a::A;\npub use b::B;"),
            ("net/a.rs", "use super::B;"),
            ("net/b.rs", "use super::A;"),
        ]);
        assert!(faults.len() == 1 && faults[0].contains("src/net/b.rs:1"), "{faults:?}");
    }
}
