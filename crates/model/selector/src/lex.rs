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
    // Room for most selectors at once.
    let mut out = Vec::with_capacity(16);
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
        self.at += self.rest().bytes().take_while(|b| matches!(b, b' ' | b'\t')).count();
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
        let mut bytes = self.rest().bytes();
        let Some(first) = bytes.next() else { return Ok(Token::End) };
        let (token, len) = match (first, bytes.next()) {
            (b'"' | b'\'', _) => return self.string(char::from(first)),
            (b'=', Some(b'=')) => (Token::Eq, 2),
            (b'!', Some(b'=')) => (Token::Ne, 2),
            (b'&', Some(b'&')) => (Token::And, 2),
            (b'|', Some(b'|')) => (Token::Or, 2),
            (b'!', _) => (Token::Not, 1),
            (b'(', _) => (Token::LeftParen, 1),
            (b')', _) => (Token::RightParen, 1),
            (b'{', _) => (Token::LeftBrace, 1),
            (b'}', _) => (Token::RightBrace, 1),
            (b',', _) => (Token::Comma, 1),
            (b'=', _) => return Err(self.wrong("'=='")),
            (b'&', _) => return Err(self.wrong("'&&'")),
            (b'|', _) => return Err(self.wrong("'||'")),
            _ if self.after_label => return self.word_operator(),
            _ => return self.term(),
        };
        self.at += len;
        Ok(token)
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

/// Whether a label may contain each byte.
const LABEL_BYTES: [bool; 256] = {
    let mut all = [false; 256];
    let mut b: u8 = 0;
    while b < u8::MAX {
        all[b as usize] = b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-');
        b += 1;
    }
    all
};

fn is_label_byte(b: u8) -> bool {
    LABEL_BYTES[usize::from(b)]
}
