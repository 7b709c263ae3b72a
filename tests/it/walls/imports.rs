//! Which module names what: the imports and the paths of Rust sources, each resolved to the module that defines it.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::path::Path;
use std::vec::IntoIter;

type Segments = Vec<String>;

/// The modules of a crate, without its tests.
#[derive(Default)]
pub struct Tree {
    modules: BTreeMap<Segments, Module>,
}

#[derive(Default)]
struct Module {
    file: String,
    /// What it defines itself.
    items: BTreeSet<String>,
    /// By what name it imports which path.
    imports: BTreeMap<String, Segments>,
    globs: Vec<Segments>,
    /// Every path in it, those of its imports too, and on which line.
    paths: Vec<(Segments, usize)>,
}

/// One module names something.
pub struct Naming {
    pub file: String,
    pub line: usize,
    pub from: Segments,
    /// The module that defines it, or that is named itself.
    pub to: Segments,
    pub name: String,
}

impl Tree {
    /// Takes in one file by its path: `src/store/owner.rs`.
    pub fn add(&mut self, path: &str, text: &str) {
        let mut module: Segments =
            Path::new(path).with_extension("").iter().skip(1).map(|step| step.to_str().unwrap().to_owned()).collect();
        if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
            module.pop();
        }
        let mut parser = Parser { tree: self, file: path, tokens: without_tests(&tokens(text)).into_iter().peekable() };
        parser.items(&module, 0);
    }

    /// The folders and files at the top.
    pub fn rooms(&self) -> impl Iterator<Item = String> {
        let rooms: BTreeSet<String> = self.modules.keys().filter_map(|module| module.first().cloned()).collect();
        rooms.into_iter()
    }

    /// Everything that a module names outside of itself.
    pub fn namings(&self) -> Vec<Naming> {
        let named = |from: &Segments, module: &Module, path: &Segments, line: usize| {
            let (to, name) = self.resolve(&self.absolute(from, path)?, 0)?;
            (to != *from).then(|| Naming { file: module.file.clone(), line, from: from.clone(), to, name })
        };
        let modules = self.modules.iter();
        modules
            .flat_map(|(from, module)| {
                module.paths.iter().filter_map(move |(path, line)| named(from, module, path, *line))
            })
            .collect()
    }

    /// A path from the crate's root on; `None` for those into other crates, or that begin with a name of the module's own.
    fn absolute(&self, from: &[String], path: &[String]) -> Option<Segments> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([from, rest].concat()),
            "super" => {
                let (_, above) = from.split_last()?;
                // A second `super` goes on from there.
                if rest.first().is_some_and(|next| next == "super") {
                    self.absolute(above, rest)
                } else {
                    Some([above, rest].concat())
                }
            }
            _ => {
                let child = [from, std::slice::from_ref(first)].concat();
                let known = self.modules.contains_key(&child)
                    || self.modules.get(from).is_some_and(|module| module.imports.contains_key(first));
                (known && !is_import_of(self.modules.get(from), path)).then(|| [from, path].concat())
            }
        }
    }

    /// The module that defines what is at the end of a path, and the last name in it that means anything here.
    fn resolve(&self, path: &[String], steps: usize) -> Option<(Segments, String)> {
        // Names that are imported from one another in a ring do not compile.
        if steps > 16 {
            return None;
        }
        let mut at: Segments = Vec::new();
        for (index, name) in path.iter().enumerate() {
            let rest = &path[index + 1..];
            let child = [at.as_slice(), std::slice::from_ref(name)].concat();
            let module = self.modules.get(&at)?;
            let import = module.imports.get(name).and_then(|import| self.absolute(&at, import));
            let is_module = self.modules.contains_key(&child);
            match import {
                // A module and what is imported from it may have one name.
                Some(import) if !(is_module && (!rest.is_empty() || import == child)) => {
                    return self.resolve(&[import.as_slice(), rest].concat(), steps + 1);
                }
                _ if is_module => at = child,
                _ if module.items.contains(name) => return Some((at, name.clone())),
                _ => {
                    let globs = module.globs.iter().filter_map(|glob| self.absolute(&at, glob));
                    let found =
                        globs.filter_map(|glob| self.resolve(&[glob.as_slice(), &path[index..]].concat(), steps + 1));
                    let whole = found.into_iter().find(|(_, found)| found == name);
                    return whole.or_else(|| Some((at.clone(), name.clone())));
                }
            }
        }
        let name = at.last()?.clone();
        Some((at, name))
    }
}

/// Whether a path of one name is an import by that name: `use serde;` names a crate.
fn is_import_of(module: Option<&Module>, path: &[String]) -> bool {
    let [name] = path else { return false };
    module.is_some_and(|module| module.imports.get(name).is_some_and(|import| import == path))
}

struct Parser<'a> {
    tree: &'a mut Tree,
    file: &'a str,
    tokens: Peekable<IntoIter<(String, usize)>>,
}

impl Parser<'_> {
    /// Reads the items of a module up to its closing brace.
    fn items(&mut self, module: &Segments, depth: usize) {
        self.file.clone_into(&mut self.tree.modules.entry(module.clone()).or_default().file);
        let mut open = depth;
        while let Some((token, line)) = self.tokens.next() {
            match token.as_str() {
                "{" => open += 1,
                "}" if open == depth => return,
                "}" => open -= 1,
                "mod" => {
                    let Some((name, _)) = self.tokens.next() else { return };
                    let child = [module.as_slice(), &[name]].concat();
                    if self.tokens.next_if(|(next, _)| next == "{").is_some() {
                        self.items(&child, open);
                    }
                }
                "use" => self.tree_of_uses(module, &[], line),
                "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" => {
                    let name = self
                        .tokens
                        .next_if(|(next, _)| is_word(next) && !["fn", "unsafe", "async"].contains(&next.as_str()));
                    if let Some((name, _)) = name {
                        self.of(module).items.insert(name);
                    }
                }
                "macro_rules" => {
                    self.tokens.next();
                    if let Some((name, _)) = self.tokens.next() {
                        self.of(module).items.insert(name);
                    }
                }
                "::" => {
                    // What follows begins in no module of ours: `<T>::new`, `::std`.
                    self.tokens.next_if(|(next, _)| is_word(next));
                }
                _ if is_word(&token) => self.path(module, token, line),
                _ => {}
            }
        }
    }

    fn of(&mut self, module: &Segments) -> &mut Module {
        self.tree.modules.entry(module.clone()).or_default()
    }

    /// `crate::store::owner::Claim` and the like.
    fn path(&mut self, module: &Segments, first: String, line: usize) {
        let mut path = vec![first];
        while self.tokens.next_if(|(next, _)| next == "::").is_some() {
            let Some((name, _)) = self.tokens.next_if(|(next, _)| is_word(next)) else { break };
            path.push(name);
        }
        if path.len() > 1 {
            self.of(module).paths.push((path, line));
        }
    }

    /// The rest of a `use`, or one branch of it.
    fn tree_of_uses(&mut self, module: &Segments, before: &[String], line: usize) {
        let mut path = before.to_vec();
        let mut alias = None;
        while let Some((token, _)) = self.tokens.next() {
            match token.as_str() {
                "::" => {}
                "{" => {
                    while self.tokens.next_if(|(next, _)| next == "}").is_none() && self.tokens.peek().is_some() {
                        self.tree_of_uses(module, &path, line);
                        self.tokens.next_if(|(next, _)| next == ",");
                    }
                    return;
                }
                "*" => {
                    let named = self.of(module);
                    named.globs.push(path.clone());
                    named.paths.push((path, line));
                    return;
                }
                "as" => alias = self.tokens.next().map(|(name, _)| name),
                _ => path.push(token),
            }
            if self.tokens.peek().is_none_or(|(next, _)| [",", "}", ";"].contains(&next.as_str())) {
                break;
            }
        }
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
        }
        if let Some(name) = alias.or_else(|| path.last().cloned()) {
            let named = self.of(module);
            named.imports.insert(name, path.clone());
            named.paths.push((path, line));
        }
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The words and signs of a source with their lines; `::` is one. Comments, texts and numbers are left out.
fn tokens(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if let Some(skipped) = skipped(rest) {
            skipped
        } else if first.is_alphanumeric() || first == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            if !first.is_numeric() {
                found.push((rest[..length].to_owned(), line));
            }
            length
        } else {
            let length = if rest.starts_with("::") { 2 } else { first.len_utf8() };
            found.extend((!first.is_whitespace()).then(|| (rest[..length].to_owned(), line)));
            length
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

/// How long the comment, the text, the character or the lifetime is that begins here.
fn skipped(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(text.find("*/").map_or(text.len(), |end| end + 2));
    }
    let bare = text.strip_prefix('b').unwrap_or(text);
    let before = text.len() - bare.len();
    if let Some(raw) = bare.strip_prefix('r')
        && let Some(hashes) = raw.find('"').filter(|at| raw[..*at].bytes().all(|byte| byte == b'#'))
    {
        let close = format!("\"{}", "#".repeat(hashes));
        let body = &raw[hashes + 1..];
        let end = body.find(&close).map_or(body.len(), |end| end + close.len());
        return Some(before + 1 + hashes + 1 + end);
    }
    let quoted = |quote: char| {
        let mut escaped = false;
        let end = bare[1..].find(|c: char| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        before + end.map_or(bare.len(), |end| end + 2)
    };
    if bare.starts_with('"') {
        return Some(quoted('"'));
    }
    let mut letters = bare.strip_prefix('\'')?.chars();
    let (first, second) = (letters.next(), letters.next());
    let is_character = first == Some('\\') || second == Some('\'');
    // A lifetime ends with its name.
    let name = bare[1..].find(|c: char| !c.is_alphanumeric() && c != '_').map_or(bare.len(), |end| end + 1);
    Some(if is_character { quoted('\'') } else { before + name })
}

/// Leaves out each item under `#[cfg(test)]` and its kin.
fn without_tests(all: &[(String, usize)]) -> Vec<(String, usize)> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < all.len() {
        let end = attribute_end(all, at);
        let attribute = &all[at..end];
        let has = |word: &str| attribute.iter().any(|(token, _)| token == word);
        if end > at && has("cfg") && has("test") && !has("not") {
            at = item_end(all, end);
        } else {
            let end = end.max(at + 1);
            kept.extend_from_slice(&all[at..end]);
            at = end;
        }
    }
    kept
}

/// Where an attribute that begins here ends; here where none does.
fn attribute_end(all: &[(String, usize)], at: usize) -> usize {
    let is = |at: usize, token: &str| all.get(at).is_some_and(|(found, _)| found == token);
    if !is(at, "#") || !is(at + 1, "[") { at } else { closing(all, at + 1, "[", "]") }
}

fn item_end(all: &[(String, usize)], mut at: usize) -> usize {
    loop {
        let end = attribute_end(all, at);
        if end == at {
            break;
        }
        at = end;
    }
    while let Some((token, _)) = all.get(at) {
        match token.as_str() {
            ";" | "," => return at + 1,
            "(" => at = closing(all, at, "(", ")"),
            "{" => return closing(all, at, "{", "}"),
            _ => at += 1,
        }
    }
    at
}

/// Behind the bracket that closes the one here.
fn closing(all: &[(String, usize)], from: usize, open: &str, close: &str) -> usize {
    let mut depth = 0_usize;
    for (at, (token, _)) in all.iter().enumerate().skip(from) {
        if token == open {
            depth += 1;
        } else if token == close {
            depth -= 1;
            if depth == 0 {
                return at + 1;
            }
        }
    }
    all.len()
}
