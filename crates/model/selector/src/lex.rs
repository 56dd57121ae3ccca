//! Text to tokens. Blanks are space and tab; strings have no escapes; operators in words are
//! operators only right after a label, so that `in == 'x'` names a label `in`.

use crate::MAX_LABEL_LENGTH;
use crate::parse::SelectorError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    Label(&'a str),
    Text(&'a str),
    LeftBrace,
    RightBrace,
    Comma,
    Eq,
    Ne,
    Contains,
    StartsWith,
    EndsWith,
    In,
    NotIn,
    Not,
    And,
    Or,
    LeftParen,
    RightParen,
    Has(&'a str),
    All,
    Global,
    End,
}

/// A token and the byte offset at which it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spanned<'a> {
    pub(crate) token: Token<'a>,
    pub(crate) at: usize,
}

pub(crate) fn tokens(text: &str) -> Result<Vec<Spanned<'_>>, SelectorError> {
    let mut lexer = Lexer { text, at: 0, after_label: false };
    let mut out = Vec::new();
    loop {
        lexer.skip_blanks();
        let at = lexer.at;
        let token = lexer.next()?;
        lexer.after_label = matches!(token, Token::Label(_));
        out.push(Spanned { token, at });
        if token == Token::End {
            return Ok(out);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    after_label: bool,
}

const SYMBOLS: [(&str, Token<'static>); 11] = [
    ("==", Token::Eq),
    ("!=", Token::Ne),
    ("&&", Token::And),
    ("||", Token::Or),
    ("!", Token::Not),
    ("(", Token::LeftParen),
    (")", Token::RightParen),
    ("{", Token::LeftBrace),
    ("}", Token::RightBrace),
    (",", Token::Comma),
    ("", Token::End),
];

const WORD_OPERATORS: [(&[&str], Token<'static>); 5] = [
    (&["contains"], Token::Contains),
    (&["starts", "with"], Token::StartsWith),
    (&["ends", "with"], Token::EndsWith),
    (&["not", "in"], Token::NotIn),
    (&["in"], Token::In),
];

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    fn cut(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        if found {
            self.at += prefix.len();
        }
        found
    }

    fn wrong(&self, expected: &str) -> SelectorError {
        SelectorError::at(self.text, self.at, expected)
    }

    fn next(&mut self) -> Result<Token<'a>, SelectorError> {
        let Some(first) = self.rest().bytes().next() else { return Ok(Token::End) };
        if first == b'"' || first == b'\'' {
            return self.string(char::from(first));
        }
        for (symbol, token) in SYMBOLS {
            if !symbol.is_empty() && self.cut(symbol) {
                return Ok(token);
            }
        }
        match first {
            b'=' => Err(self.wrong("'=='")),
            b'&' => Err(self.wrong("'&&'")),
            b'|' => Err(self.wrong("'||'")),
            _ if self.after_label => self.word_operator(),
            _ => self.term(),
        }
    }

    fn string(&mut self, quote: char) -> Result<Token<'a>, SelectorError> {
        let body = &self.rest()[1..];
        let end = body.find(quote).ok_or_else(|| self.wrong("a closing quote for this string"))?;
        self.at += end + 2;
        Ok(Token::Text(&body[..end]))
    }

    fn word_operator(&mut self) -> Result<Token<'a>, SelectorError> {
        let start = self.at;
        for (words, token) in WORD_OPERATORS {
            let all = words.iter().enumerate().all(|(i, word)| {
                if i > 0 {
                    self.skip_blanks();
                }
                self.cut(word)
            });
            if all {
                // Several words are a unit only when no label character follows the blanks after them.
                if words.len() > 1 {
                    self.skip_blanks();
                }
                if !self.rest().bytes().next().is_some_and(is_label_byte) {
                    return Ok(token);
                }
            }
            self.at = start;
        }
        Err(self.wrong("an operator after the label: ==, !=, in, not in, contains, starts with, ends with"))
    }

    fn term(&mut self) -> Result<Token<'a>, SelectorError> {
        if self.cut("has(") {
            self.skip_blanks();
            let key = self.label()?;
            self.close("')' after has(")?;
            return Ok(Token::Has(key));
        }
        if self.cut("all(") {
            self.close("')' after all(")?;
            return Ok(Token::All);
        }
        if self.cut("global(") {
            self.close("')' after global(")?;
            return Ok(Token::Global);
        }
        self.label().map(Token::Label)
    }

    fn close(&mut self, expected: &str) -> Result<(), SelectorError> {
        self.skip_blanks();
        if self.cut(")") { Ok(()) } else { Err(self.wrong(expected)) }
    }

    fn label(&mut self) -> Result<&'a str, SelectorError> {
        let rest = self.rest();
        let len = rest.bytes().take_while(|b| is_label_byte(*b)).count();
        match len {
            0 => Err(self.wrong("a label, has(LABEL), all(), global(), '!' or '('")),
            1..=MAX_LABEL_LENGTH => {
                self.at += len;
                Ok(&rest[..len])
            }
            _ => Err(self.wrong("a label of at most 512 bytes")),
        }
    }
}

fn is_label_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-')
}
