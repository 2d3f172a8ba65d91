//! `proxysql.cnf`: libconfig's grammar. <https://hyperrealm.github.io/libconfig/libconfig_manual.html#Configuration-Files>

use super::Content;
use super::Row;
use crate::cli::import::Error;
use crate::cli::import::target::Setting;

/// Groups and lists in each other; ProxySQL has two.
const DEEPEST: usize = 8;

pub(super) fn read(text: &str) -> Result<Content, Error> {
    let mut reader = Reader {
        rest: text,
        line: 1,
    };
    let mut content = Content::default();
    while let Some((line, name)) = reader.name()? {
        if name == "@include" {
            let file = reader.string()?;
            return Err(Error::at(
                line,
                format!(
                    "includes \"{file}\": put its text there, or import what SAVE CONFIG TO FILE writes"
                ),
            ));
        }
        reader.assigned(&name)?;
        let value = reader.value(0)?;
        reader.skip_any(&[';', ','])?;
        take(line, &name, value, &mut content)?;
    }
    Ok(content)
}

/// A value, each with its line.
enum Node {
    Scalar(String),
    Group(Vec<(usize, String, Self)>),
    List(Vec<(usize, Self)>),
}

fn take(line: usize, name: &str, value: Node, content: &mut Content) -> Result<(), Error> {
    match value {
        Node::Scalar(value) => content.variables.push(Setting::new(line, name, value)),
        Node::Group(settings) => {
            let prefix = name.strip_suffix("_variables").unwrap_or(name);
            for (line, name, value) in settings {
                let prefixed = format!("{prefix}-");
                let name = name.strip_prefix(&prefixed).unwrap_or(&name);
                let name = format!("{prefixed}{name}");
                content
                    .variables
                    .push(Setting::new(line, name, scalar(line, value)?));
            }
        }
        Node::List(items) => {
            for (line, item) in items {
                let Node::Group(settings) = item else {
                    return Err(Error::at(
                        line,
                        format!("\"{name}\" has rows in braces: ( {{ … }}, {{ … }} )"),
                    ));
                };
                let mut fields = Vec::new();
                for (line, column, value) in settings {
                    // Two names for the same column.
                    let column = match (name, column.as_str()) {
                        ("mysql_servers", "address") => "hostname".to_owned(),
                        ("mysql_servers", "hostgroup") => "hostgroup_id".to_owned(),
                        _ => column,
                    };
                    fields.push((column, scalar(line, value)?));
                }
                content.rows.push(Row::new(line, name, fields)?);
            }
        }
    }
    Ok(())
}

/// A value that is no group; the items of a list stand behind each other.
fn scalar(line: usize, value: Node) -> Result<String, Error> {
    match value {
        Node::Scalar(value) => Ok(value),
        Node::List(items) => {
            let items: Result<Vec<_>, _> = items
                .into_iter()
                .map(|(line, item)| scalar(line, item))
                .collect();
            Ok(items?.join(";"))
        }
        Node::Group(_) => Err(Error::at(line, "a group where a value is expected")),
    }
}

struct Reader<'t> {
    rest: &'t str,
    line: usize,
}

impl Reader<'_> {
    /// Goes on by so many bytes.
    fn advance(&mut self, bytes: usize) {
        let (gone, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.line += gone.matches('\n').count();
        self.rest = rest;
    }

    /// The next character that is neither blank nor comment.
    fn peek(&mut self) -> Result<Option<char>, Error> {
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.advance(blank);
            if self.rest.starts_with('#') || self.rest.starts_with("//") {
                self.advance(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                let Some(end) = self.rest.find("*/") else {
                    return Err(Error::at(self.line, "a comment without its end"));
                };
                self.advance(end + 2);
            } else {
                return Ok(self.rest.chars().next());
            }
        }
    }

    /// Passes one of these characters, if it comes next.
    fn skip_any(&mut self, any: &[char]) -> Result<Option<char>, Error> {
        let found = self.peek()?.filter(|c| any.contains(c));
        if let Some(c) = found {
            self.advance(c.len_utf8());
        }
        Ok(found)
    }

    /// The next setting's name and line; nothing at the end.
    fn name(&mut self) -> Result<Option<(usize, String)>, Error> {
        let Some(first) = self.peek()? else {
            return Ok(None);
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '*' | '@');
        let end = self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(Error::at(
                self.line,
                format!("\"{first}\" where a name is expected"),
            ));
        }
        let found = (self.line, self.rest.split_at(end).0.to_owned());
        self.advance(end);
        Ok(Some(found))
    }

    fn assigned(&mut self, name: &str) -> Result<(), Error> {
        match self.skip_any(&['=', ':'])? {
            Some(_) => Ok(()),
            None => Err(Error::at(
                self.line,
                format!("\"=\" is missing behind \"{name}\""),
            )),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node, Error> {
        let line = self.line;
        match self.peek()? {
            Some('{' | '(' | '[') if depth == DEEPEST => {
                Err(Error::at(line, "groups in groups in groups"))
            }
            Some('{') => self.group(depth),
            Some('(') => self.list(')', depth),
            Some('[') => self.list(']', depth),
            Some('"') => self.string().map(Node::Scalar),
            _ => self.word().map(Node::Scalar),
        }
    }

    fn group(&mut self, depth: usize) -> Result<Node, Error> {
        let opened = self.line;
        self.advance(1);
        let mut settings = Vec::new();
        loop {
            if self.skip_any(&['}'])?.is_some() {
                return Ok(Node::Group(settings));
            }
            let Some((line, name)) = self.name()? else {
                return Err(Error::at(opened, "a \"{\" without its \"}\""));
            };
            self.assigned(&name)?;
            settings.push((line, name, self.value(depth + 1)?));
            self.skip_any(&[';', ','])?;
        }
    }

    fn list(&mut self, end: char, depth: usize) -> Result<Node, Error> {
        let opened = self.line;
        self.advance(1);
        let mut items = Vec::new();
        loop {
            if self.skip_any(&[end])?.is_some() {
                return Ok(Node::List(items));
            }
            if self.peek()?.is_none() {
                return Err(Error::at(opened, format!("a list without its \"{end}\"")));
            }
            items.push((self.line, self.value(depth + 1)?));
            if self.skip_any(&[','])?.is_none() && self.peek()? != Some(end) {
                return Err(Error::at(
                    self.line,
                    format!("\",\" or \"{end}\" is missing"),
                ));
            }
        }
    }

    /// A string; several behind each other are one.
    fn string(&mut self) -> Result<String, Error> {
        let mut out = String::new();
        if self.peek()? != Some('"') {
            return Err(Error::at(self.line, "a string is missing"));
        }
        while self.peek()? == Some('"') {
            let opened = self.line;
            self.advance(1);
            let mut end = None;
            let mut characters = self.rest.char_indices();
            while let Some((at, c)) = characters.next() {
                match c {
                    '"' => {
                        end = Some(at);
                        break;
                    }
                    '\\' => match characters.next() {
                        Some((_, 'n')) => out.push('\n'),
                        Some((_, 't')) => out.push('\t'),
                        Some((_, 'r')) => out.push('\r'),
                        Some((_, other)) => out.push(other),
                        None => {}
                    },
                    c => out.push(c),
                }
            }
            let Some(end) = end else {
                return Err(Error::at(opened, "a string without its closing quote"));
            };
            self.advance(end + 1);
        }
        Ok(out)
    }

    /// A number or a word such as `true`.
    fn word(&mut self) -> Result<String, Error> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_');
        let end = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(Error::at(self.line, "a value is missing"));
        }
        let word = self.rest.split_at(end).0;
        // 64-bit numbers end in L or LL.
        let number = word.trim_end_matches('L');
        let digits = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
        let word = if digits { number } else { word }.to_owned();
        self.advance(end);
        Ok(word)
    }
}
