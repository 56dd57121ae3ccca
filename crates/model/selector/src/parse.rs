//! Tokens to nodes, by recursive descent: `||` binds loosest, then `&&`, then prefix `!`.

use crate::lex::{Spanned, Token, tokens};
use crate::node::{Compare, Node};

/// Deepest nesting of parentheses that is accepted; a bound on the stack for hostile input.
pub const MAX_DEPTH: usize = 200;

/// Text that is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad selector at byte {position}: found {found}, expected {expected}")]
pub struct SelectorError {
    /// Byte offset into the text at which it stops making sense.
    pub position: usize,
    /// What stands there: a short excerpt in quotes, or "the end".
    pub found: String,
    /// What would have been right there.
    pub expected: String,
}

impl SelectorError {
    pub(crate) fn at(text: &str, position: usize, expected: &str) -> SelectorError {
        let rest = &text[position..];
        let found = if rest.is_empty() {
            "the end".to_owned()
        } else {
            let excerpt: String = rest.chars().take(20).collect();
            format!("{excerpt:?}")
        };
        SelectorError { position, found, expected: expected.to_owned() }
    }
}

pub(crate) fn parse(text: &str) -> Result<Node, SelectorError> {
    let tokens = tokens(text)?;
    let mut parser = Parser { text, tokens: &tokens, at: 0, depth: 0 };
    if parser.peek() == Token::End {
        return Ok(Node::All);
    }
    let node = parser.any_of()?;
    if parser.peek() != Token::End {
        return Err(parser.wrong("'&&', '||' or the end"));
    }
    Ok(node)
}

struct Parser<'t, 'a> {
    text: &'a str,
    tokens: &'t [Spanned<'a>],
    at: usize,
    depth: usize,
}

impl<'a> Parser<'_, 'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens[self.at].token
    }

    /// Takes the token at hand; the last one, `End`, is never passed.
    fn take(&mut self) -> Token<'a> {
        let token = self.peek();
        if token != Token::End {
            self.at += 1;
        }
        token
    }

    fn wrong(&self, expected: &str) -> SelectorError {
        SelectorError::at(self.text, self.tokens[self.at].at, expected)
    }

    fn any_of(&mut self) -> Result<Node, SelectorError> {
        self.joined(Token::Or, Self::all_of, Node::Or)
    }

    fn all_of(&mut self) -> Result<Node, SelectorError> {
        self.joined(Token::And, Self::operation, Node::And)
    }

    fn joined(
        &mut self,
        joiner: Token<'a>,
        operand: fn(&mut Self) -> Result<Node, SelectorError>,
        join: fn(Vec<Node>) -> Node,
    ) -> Result<Node, SelectorError> {
        let first = operand(self)?;
        if self.peek() != joiner {
            return Ok(first);
        }
        let mut operands = vec![first];
        while self.peek() == joiner {
            self.take();
            operands.push(operand(self)?);
        }
        Ok(join(operands))
    }

    fn operation(&mut self) -> Result<Node, SelectorError> {
        let mut negated = false;
        while self.peek() == Token::Not {
            self.take();
            negated = !negated;
        }
        let node = self.term()?;
        Ok(if negated { Node::Not(Box::new(node)) } else { node })
    }

    fn term(&mut self) -> Result<Node, SelectorError> {
        match self.peek() {
            Token::Has(key) => {
                self.take();
                Ok(Node::Has { key: key.to_owned() })
            }
            Token::All => {
                self.take();
                Ok(Node::All)
            }
            Token::Global => {
                self.take();
                Ok(Node::Global)
            }
            Token::Label(key) => {
                self.take();
                self.comparison(key)
            }
            Token::LeftParen => self.parenthesis(),
            _ => Err(self.wrong("a label, has(LABEL), all(), global(), '!' or '('")),
        }
    }

    fn parenthesis(&mut self) -> Result<Node, SelectorError> {
        if self.depth == MAX_DEPTH {
            return Err(self.wrong(&format!("at most {MAX_DEPTH} nested parentheses")));
        }
        self.take();
        self.depth += 1;
        let node = self.any_of()?;
        self.depth -= 1;
        if self.peek() != Token::RightParen {
            return Err(self.wrong("'&&', '||' or ')'"));
        }
        self.take();
        Ok(node)
    }

    fn comparison(&mut self, key: &str) -> Result<Node, SelectorError> {
        let op = match self.peek() {
            Token::Eq => Compare::Eq,
            Token::Ne => Compare::Ne,
            Token::Contains => Compare::Contains,
            Token::StartsWith => Compare::StartsWith,
            Token::EndsWith => Compare::EndsWith,
            Token::In => return self.set(key, false),
            Token::NotIn => return self.set(key, true),
            _ => return Err(self.wrong("==, !=, in, not in, contains, starts with or ends with")),
        };
        self.take();
        let Token::Text(value) = self.peek() else { return Err(self.wrong("a string in quotes")) };
        self.take();
        Ok(Node::Compare { key: key.to_owned(), op, value: value.to_owned() })
    }

    /// A trailing comma and an empty set are fine, as upstream.
    fn set(&mut self, key: &str, negated: bool) -> Result<Node, SelectorError> {
        self.take();
        if self.peek() != Token::LeftBrace {
            return Err(self.wrong("'{' and a set of strings"));
        }
        self.take();
        let mut values = Vec::new();
        while let Token::Text(value) = self.peek() {
            self.take();
            values.push(value.to_owned());
            if self.peek() != Token::Comma {
                break;
            }
            self.take();
        }
        if self.peek() != Token::RightBrace {
            return Err(self.wrong("a string in quotes, ',' or '}'"));
        }
        self.take();
        values.sort_unstable();
        values.dedup();
        Ok(Node::In { key: key.to_owned(), values, negated })
    }
}
