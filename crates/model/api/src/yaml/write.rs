//! YAML as `sigs.k8s.io/yaml` writes it: keys in natural order, lists at the indent of their key, text quoted where
//! it would mean something else, long text wrapped at blanks after column 80.

use std::cmp::Ordering;

use serde_json::Value;

use crate::yaml::scalar::{Scalar, is_base_60};

const WIDTH: usize = 80;

/// The value as a YAML document, with a line break at its end.
pub fn to_yaml(value: &Value) -> String {
    let mut writer = Writer { out: String::new(), column: 0 };
    writer.node(value, 0);
    writer.push("\n");
    writer.out
}

/// The value as an item of a list at the margin, appended with a line break at its end: for lists that are written as
/// they come.
pub fn push_yaml_item(out: &mut String, value: &Value) {
    let mut writer = Writer { out: std::mem::take(out), column: 0 };
    writer.push("- ");
    writer.node(value, 2);
    writer.push("\n");
    *out = writer.out;
}

struct Writer {
    out: String,
    column: usize,
}

impl Writer {
    fn push(&mut self, text: &str) {
        self.out.push_str(text);
        self.column = match text.rfind('\n') {
            Some(at) => text[at + 1..].chars().count(),
            None => self.column + text.chars().count(),
        };
    }

    fn line(&mut self, indent: usize) {
        self.push("\n");
        self.push(&" ".repeat(indent));
    }

    /// Writes at the column at hand. `indent` is that of the members, if this is a collection, and of the further lines
    /// of a text.
    fn node(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Null => self.push("null"),
            Value::Bool(b) => self.push(if *b { "true" } else { "false" }),
            Value::Number(n) => self.push(&number(n)),
            Value::String(text) => self.text(text, indent.max(2)),
            Value::Array(items) if items.is_empty() => self.push("[]"),
            Value::Object(members) if members.is_empty() => self.push("{}"),
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        self.line(indent);
                    }
                    self.push("- ");
                    self.node(item, indent + 2);
                }
            }
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                members.sort_by(|(a, _), (b, _)| natural(a, b));
                for (i, (key, value)) in members.into_iter().enumerate() {
                    if i > 0 {
                        self.line(indent);
                    }
                    self.key(key);
                    self.push(":");
                    self.member(value, indent);
                }
            }
        }
    }

    fn member(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Array(items) if !items.is_empty() => {
                self.line(indent);
                self.node(value, indent);
            }
            Value::Object(members) if !members.is_empty() => {
                self.line(indent + 2);
                self.node(value, indent + 2);
            }
            _ => {
                self.push(" ");
                self.node(value, indent + 2);
            }
        }
    }

    fn key(&mut self, key: &str) {
        match Style::of(key, true) {
            Style::Plain => self.push(key),
            Style::Single => self.push(&format!("'{}'", key.replace('\'', "''"))),
            Style::Double | Style::Literal => {
                let mut text = String::from('"');
                key.chars().for_each(|c| escape(c, &mut text));
                text.push('"');
                self.push(&text);
            }
        }
    }

    fn text(&mut self, text: &str, indent: usize) {
        match Style::of(text, false) {
            Style::Plain => self.wrapped(text, indent, |c, out| out.push(c), Wrap { edges: true, mark: false }),
            Style::Single => {
                self.push("'");
                let write = |c, out: &mut String| if c == '\'' { out.push_str("''") } else { out.push(c) };
                self.wrapped(text, indent, write, Wrap { edges: false, mark: false });
                self.push("'");
            }
            Style::Double => {
                self.push("\"");
                self.wrapped(text, indent, escape, Wrap { edges: false, mark: true });
                self.push("\"");
            }
            Style::Literal => self.literal(text, indent),
        }
    }

    /// Writes text and breaks it at blanks past the width.
    fn wrapped(&mut self, text: &str, indent: usize, write: impl Fn(char, &mut String), wrap: Wrap) {
        if !text.contains(' ') {
            let mut whole = String::with_capacity(text.len());
            text.chars().for_each(|c| write(c, &mut whole));
            return self.push(&whole);
        }
        let chars: Vec<char> = text.chars().collect();
        let mut after_blank = false;
        let mut piece = String::new();
        for (i, c) in chars.iter().enumerate() {
            let next_blank = chars.get(i + 1) == Some(&' ');
            let inside = wrap.edges || (i > 0 && i + 1 < chars.len());
            if *c == ' ' && !after_blank && self.column > WIDTH && inside && (wrap.mark || !next_blank) {
                self.line(indent);
                if next_blank {
                    self.push("\\");
                }
            } else {
                piece.clear();
                write(*c, &mut piece);
                self.push(&piece);
            }
            after_blank = *c == ' ';
        }
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.push("|");
        if text.starts_with([' ', '\n']) {
            self.push("2");
        }
        if !text.ends_with('\n') {
            self.push("-");
        } else if text == "\n" || text.ends_with("\n\n") {
            self.push("+");
        }
        let body = text.strip_suffix('\n').unwrap_or(text);
        for line in body.split('\n') {
            self.push("\n");
            if !line.is_empty() {
                self.push(&" ".repeat(indent));
                self.push(line);
            }
        }
    }
}

/// Where text may be broken.
#[derive(Clone, Copy)]
struct Wrap {
    /// Also at the first and last character.
    edges: bool,
    /// Also before a further blank, which is then marked with a backslash.
    mark: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

impl Style {
    fn of(text: &str, key: bool) -> Style {
        if is_word(text) {
            return if Scalar::of(text) == Scalar::Text { Style::Plain } else { Style::Double };
        }
        let form = Form::of(text);
        if text.contains('\n') {
            return if key || form.special || form.blank_end || form.blank_then_break {
                Style::Double
            } else {
                Style::Literal
            };
        }
        if Scalar::of(text) != Scalar::Text || is_base_60(text) {
            return Style::Double;
        }
        if form.special {
            Style::Double
        } else if form.indicator || form.blank_end || text.starts_with(' ') {
            Style::Single
        } else {
            Style::Plain
        }
    }
}

/// Whether the text is one of the many that only a meaning of their own could stand against writing plain.
fn is_word(text: &str) -> bool {
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
    text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) && text.as_bytes().iter().all(inner)
}

/// What of a text stands against writing it without quotes.
struct Form {
    /// Characters that can only be written escaped.
    special: bool,
    /// Characters that would end or begin something.
    indicator: bool,
    blank_end: bool,
    blank_then_break: bool,
}

impl Form {
    fn of(text: &str) -> Form {
        let chars: Vec<char> = text.chars().collect();
        let blank = |c: Option<&char>| c.is_none_or(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\0'));
        let mut indicator = text.starts_with("---") || text.starts_with("...");
        let mut special = false;
        let mut blank_then_break = false;
        for (i, c) in chars.iter().enumerate() {
            let next_blank = blank(chars.get(i + 1));
            indicator |= match c {
                '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`'
                    if i == 0 =>
                {
                    true
                }
                '-' | '?' if i == 0 => next_blank,
                ':' => next_blank,
                '#' => blank(chars.get(i - 1)),
                _ => false,
            };
            special |= !printable(*c);
            blank_then_break |= *c == ' ' && chars.get(i + 1) == Some(&'\n');
        }
        Form { special, indicator, blank_end: text.ends_with(' '), blank_then_break }
    }
}

fn printable(c: char) -> bool {
    let text = matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    // Not the line separators, and not the byte order mark.
    text && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn escape(c: char, out: &mut String) {
    let short = match c {
        '\0' => "\\0",
        '\x07' => "\\a",
        '\x08' => "\\b",
        '\t' => "\\t",
        '\n' => "\\n",
        '\x0b' => "\\v",
        '\x0c' => "\\f",
        '\r' => "\\r",
        '\x1b' => "\\e",
        '"' => "\\\"",
        '\\' => "\\\\",
        '\u{85}' => "\\N",
        '\u{a0}' => "\\_",
        '\u{2028}' => "\\L",
        '\u{2029}' => "\\P",
        c if printable(c) => return out.push(c),
        c if u32::from(c) <= 0xff => return out.push_str(&format!("\\x{:02X}", u32::from(c))),
        c if u32::from(c) <= 0xffff => return out.push_str(&format!("\\u{:04X}", u32::from(c))),
        c => return out.push_str(&format!("\\U{:08X}", u32::from(c))),
    };
    out.push_str(short);
}

fn number(n: &serde_json::Number) -> String {
    match n.as_f64().filter(|_| n.is_f64()) {
        Some(float) if float.fract() == 0.0 && float.abs() < 1e21 => format!("{float:.0}"),
        Some(_) | None => n.to_string(),
    }
}

/// Letters by code point, digits by the number that they form, anything else before letters.
fn natural(a: &str, b: &str) -> Ordering {
    // Nearly all keys differ first in two plain letters.
    if let Some((x, y)) = a.bytes().zip(b.bytes()).find(|(x, y)| x != y)
        && x.is_ascii_alphabetic()
        && y.is_ascii_alphabetic()
    {
        return x.cmp(&y);
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(at) = a.iter().zip(&b).position(|(x, y)| x != y) else { return a.len().cmp(&b.len()) };
    let (x, y) = (a[at], b[at]);
    match (x.is_alphabetic(), y.is_alphabetic()) {
        (true, true) => return x.cmp(&y),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    let within_number = x == '0' || y == '0';
    let before = a[..at].iter().rev().take_while(|c| c.is_ascii_digit()).any(|c| *c != '0');
    let seed = u64::from(within_number && before);
    let run = |text: &[char]| {
        let digits = text[at..].iter().take_while(|c| c.is_ascii_digit());
        digits.fold((seed, 0usize), |(n, len), c| {
            (n.wrapping_mul(10).wrapping_add(u64::from(c.to_digit(10).unwrap_or(0))), len + 1)
        })
    };
    run(&a).cmp(&run(&b)).then(x.cmp(&y))
}
