//! Regular expressions of other proxies, in dbproxy's words where they mean the same.

/// How an expression of PCRE or RE2 is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looks {
    /// At the statement as the client sent it.
    AtText,
    /// At its digest: without comments, with one blank between words, and with `?` in place of each literal.
    AtDigest,
}

/// The longest expression that is looked at.
const LONGEST: usize = 2_000;

/// Comments and blanks, which a digest has not at its beginning.
const LEADING: &str = r"^(?s:\s|/\*.*?\*/)*";

/// An expression that matches the same, but for literals and comments in what a digest was.
///
/// # Errors
/// What in it cannot be said.
pub(super) fn translated(
    pattern: &str,
    ignores_case: bool,
    looks: Looks,
) -> Result<String, &'static str> {
    if pattern.len() > LONGEST {
        return Err("the expression is too long");
    }
    // There bytes are matched, and only ASCII letters have a case.
    let mut out = String::from("(?");
    out.push_str(if ignores_case { "i" } else { "" });
    // A digest is a single line.
    out.push_str(if looks == Looks::AtDigest { "s" } else { "" });
    out.push_str("-u)");
    let mut characters = pattern.chars().peekable();
    let mut repeated = false;
    while let Some(c) = characters.next() {
        let next = characters.peek().copied();
        let was_repeated = std::mem::replace(&mut repeated, false);
        match c {
            '\\' => {
                let escaped = characters.next().ok_or("it ends with a backslash")?;
                out.push_str(&escape(escaped, looks)?);
            }
            '[' => class(&mut characters, &mut out, looks)?,
            '(' if next == Some('?') => {
                let rest: String = characters.clone().skip(1).take(2).collect();
                let plain = [":", "i:", "s:"]
                    .iter()
                    .any(|start| rest.starts_with(start))
                    || ["i)", "s)"].contains(&rest.as_str());
                if !plain {
                    return Err("it has a group of a kind that dbproxy's expressions do not have");
                }
                out.push_str("(?");
                characters.next();
            }
            '$' if looks == Looks::AtDigest => out.push_str(r"\s*;?\s*$"),
            // There it also stands before a last line break.
            '$' => out.push_str(r"\n?$"),
            '^' if looks == Looks::AtDigest => out.push_str(LEADING),
            ' ' if looks == Looks::AtDigest => out.push_str(r"\s+"),
            '+' if was_repeated => return Err("it has a possessive quantifier"),
            '*' | '+' | '?' => {
                repeated = !was_repeated;
                out.push(c);
            }
            '}' => {
                repeated = true;
                out.push(c);
            }
            '{' if next == Some(',') => return Err("it has a brace that is no quantifier"),
            '{' => out.push(c),
            c if looks == Looks::AtDigest && (c.is_ascii_digit() || "'\"?#".contains(c)) => {
                // Digits of a quantifier belong to it; others are literals, which a digest has not.
                match out.rsplit_once('{') {
                    Some((_, open)) if !open.contains('}') && c.is_ascii_digit() => out.push(c),
                    _ => return Err("it looks for a literal in a digest, which has none here"),
                }
            }
            c => out.push(c),
        }
    }
    ::regex::bytes::Regex::new(&out).map_err(|_| "it is none in dbproxy's syntax")?;
    Ok(out)
}

fn escape(escaped: char, looks: Looks) -> Result<String, &'static str> {
    match escaped {
        '?' if looks == Looks::AtDigest => {
            Err("it looks for the place of a literal in a digest; dbproxy has the literal there")
        }
        '<' | '>' => Ok(escaped.to_string()),
        'b' | 'B' | 'd' | 'D' | 'w' | 'W' | 's' | 'S' | 'n' | 'r' | 't' | 'z' | 'A' => {
            Ok(format!("\\{escaped}"))
        }
        c if c.is_ascii_punctuation() => Ok(::regex::escape(&c.to_string())),
        _ => Err("it has an escape that dbproxy's expressions do not have"),
    }
}

/// Copies a class, behind its `[`.
fn class(
    characters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    out: &mut String,
    looks: Looks,
) -> Result<(), &'static str> {
    out.push('[');
    if characters.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    if characters.next_if_eq(&']').is_some() {
        out.push_str("\\]");
    }
    let mut before = None;
    while let Some(c) = characters.next() {
        match c {
            ']' => {
                out.push(']');
                return Ok(());
            }
            '\\' => {
                let escaped = characters.next().ok_or("it ends with a backslash")?;
                if "bBzA".contains(escaped) {
                    return Err("it has an escape that dbproxy's expressions do not have");
                }
                out.push_str(&escape(escaped, looks)?);
            }
            '[' if characters.peek() == Some(&':') => {
                out.push('[');
                for c in characters.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            '[' => out.push_str("\\["),
            '&' | '-' | '~' if before == Some(c) => {
                return Err("it has a class that dbproxy reads in another way");
            }
            c if !c.is_ascii() => {
                return Err("it has a class with characters that are not ASCII");
            }
            c => out.push(c),
        }
        before = Some(c);
    }
    Err("a class has no end")
}

/// Marks of a group in a replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// `\1`
    Backslash,
    /// `$1` and `${1}`
    Dollar,
}

/// A replacement of another proxy, with each group's number raised by `shift`.
///
/// # Errors
/// What in it cannot be said.
pub(super) fn replacement(text: &str, marks: Marks, shift: usize) -> Result<String, &'static str> {
    let group = |digits: &str| -> Result<String, &'static str> {
        let number: usize = digits.parse().map_err(|_| UNKNOWN_GROUP)?;
        Ok(format!("${{{}}}", number + shift))
    };
    let mut out = String::new();
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match (c, marks) {
            ('\\', Marks::Backslash) => match characters.next() {
                Some(digit) if digit.is_ascii_digit() => out.push_str(&group(&digit.to_string())?),
                Some('\\') => out.push('\\'),
                _ => return Err(UNKNOWN_GROUP),
            },
            ('$', Marks::Backslash) => out.push_str("$$"),
            ('$', Marks::Dollar) => {
                let mut digits = String::new();
                let braced = characters.next_if_eq(&'{').is_some();
                if !braced && characters.next_if_eq(&'$').is_some() {
                    out.push_str("$$");
                    continue;
                }
                while let Some(digit) = characters.next_if(char::is_ascii_digit) {
                    digits.push(digit);
                }
                if braced && characters.next() != Some('}') {
                    return Err(UNKNOWN_GROUP);
                }
                out.push_str(&group(&digits)?);
            }
            (c, _) => out.push(c),
        }
    }
    Ok(out)
}

const UNKNOWN_GROUP: &str = "the replacement names a group in a way that dbproxy does not have";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn expressions_match_the_same() {
        for (pattern, looks, fitting, others) in [
            ("^drop table", Looks::AtText, "DROP TABLE t", " DROP TABLE"),
            ("a$", Looks::AtText, "a\n", "a\n\n"),
            ("a.b", Looks::AtText, "a-b", "a\nb"),
            (r"\<x\>", Looks::AtText, "<x>", "x"),
            (r"[]\d]{2}", Looks::AtText, "]7", "]x"),
            (r"[[a]", Looks::AtText, "[", "b"),
            ("(?:a|b)(?i:c)", Looks::AtText, "bC", "cb"),
            (
                "^SELECT .* FROM country",
                Looks::AtDigest,
                "/* x */\n select\n a\n from  country WHERE b = 'x'",
                "INSERT INTO t SELECT a FROM country",
            ),
            ("^SELECT x$", Looks::AtDigest, "SELECT x ;", "SELECT x, y"),
            ("a{2,3}", Looks::AtDigest, "aa", "a"),
        ] {
            let made = translated(pattern, true, looks).unwrap();
            let regex = ::regex::bytes::Regex::new(&made).unwrap();
            assert!(regex.is_match(fitting.as_bytes()), "{made} {fitting}");
            assert!(!regex.is_match(others.as_bytes()), "{made} {others}");
        }
        let exact = translated("a", false, Looks::AtText).unwrap();
        assert!(!::regex::bytes::Regex::new(&exact).unwrap().is_match(b"A"));
    }

    #[test]
    fn what_means_something_else_is_refused() {
        for pattern in [
            "(?=a)b", "(?!a)", "(?<=a)b", "(?>a)", "(?#x)", r"(a)\1", "a*+", "a++", "a{2}+",
            "[a&&b]", "[a--b]", "[é]", r"\Qa\E", r"\Ka", "a{,3}", "a{", "(", "[a", "\\",
        ] {
            let made = translated(pattern, true, Looks::AtText);
            assert!(made.is_err(), "{pattern}: {made:?}");
        }
        for pattern in [r"id = \?", "a = 1", "'x'"] {
            let made = translated(pattern, true, Looks::AtDigest);
            assert!(made.is_err(), "{pattern}: {made:?}");
        }
    }

    #[test]
    fn replacements_name_their_groups() {
        for (text, marks, expected) in [
            (r"\1 and \2$", Marks::Backslash, "${2} and ${3}$$"),
            (r"a\\b", Marks::Backslash, r"a\b"),
            ("$1a ${2} $$ \\", Marks::Dollar, r"${2}a ${3} $$ \"),
        ] {
            assert_eq!(replacement(text, marks, 1).unwrap(), expected, "{text}");
        }
        assert!(replacement(r"\x", Marks::Backslash, 0).is_err());
        assert!(replacement("${name}", Marks::Dollar, 0).is_err());
        assert!(replacement("$x", Marks::Dollar, 0).is_err());
    }
}
