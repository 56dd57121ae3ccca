//! The actions of a template, before it is parsed: what they print goes through a function, and how deep they nest is
//! looked at, as a parser that calls itself would end the program.

/// How deep parentheses, and blocks such as `if`, may nest.
const DEEPEST: usize = 100;

/// Actions that print nothing themselves.
const SILENT: [&str; 8] = ["if", "else", "end", "range", "with", "template", "define", "block"];

/// The template with `| FUNCTION` at the end of every action that prints; an error if something nests too deep. What is
/// no template stays as it is: the parser tells.
pub(super) fn through(function: &str, template: &str) -> Result<String, String> {
    let mut made = String::with_capacity(template.len());
    let mut blocks: Vec<usize> = Vec::new();
    let mut rest = template;
    while let Some(start) = rest.find("{{") {
        let (before, action) = rest.split_at(start + 2);
        made.push_str(before);
        let inner = action.strip_prefix("- ").unwrap_or(action);
        let length = match inner.strip_prefix("/*") {
            Some(comment) => comment.find("*/").and_then(|at| comment[at..].find("}}").map(|end| 2 + at + end)),
            None => length(inner)?,
        };
        let Some(length) = length else {
            rest = action;
            break;
        };
        let end = action.len() - inner.len() + length;
        let trim = if action[..end].ends_with(" -") { 2 } else { 0 };
        let content = &action[..end - trim];
        made.push_str(content);
        if prints(inner[..length - trim.min(length)].trim()) {
            made.push_str(&format!(" | {function}"));
        }
        nest(inner[..length].trim_start(), &mut blocks)?;
        made.push_str(&action[end - trim..end + 2]);
        rest = &action[end + 2..];
    }
    made.push_str(rest);
    Ok(made)
}

/// How long an action is, up to its `}}`; none if it does not end.
fn length(action: &str) -> Result<Option<usize>, String> {
    let mut depth = 0;
    let mut chars = action.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' | '`' | '\'' => {
                while let Some((_, inner)) = chars.next() {
                    match inner {
                        '\\' if c != '`' => drop(chars.next()),
                        inner if inner == c => break,
                        _ => {}
                    }
                }
            }
            '(' if depth == DEEPEST => return Err(format!("parentheses are nested deeper than {DEEPEST}")),
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '}' if action[at..].starts_with("}}") => return Ok(Some(at)),
            _ => {}
        }
    }
    Ok(None)
}

fn word(action: &str) -> &str {
    let end = action.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(action.len());
    &action[..end]
}

/// Whether an action prints what it comes to: it is neither a comment, nor part of a block, nor an assignment.
fn prints(action: &str) -> bool {
    let named = action.strip_prefix('$').map(|name| name.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'));
    let assigns = named.is_some_and(|after| after.trim_start().starts_with([':', '=', ',']));
    !(action.is_empty() || action.starts_with("/*") || assigns || SILENT.contains(&word(action)))
}

/// Keeps count of the blocks that are open; one with `else if` is as deep as it has branches.
fn nest(action: &str, blocks: &mut Vec<usize>) -> Result<(), String> {
    match word(action) {
        "if" | "range" | "with" | "define" | "block" => blocks.push(1),
        "end" => drop(blocks.pop()),
        "else" if !action["else".len()..].trim().is_empty() => {
            if let Some(block) = blocks.last_mut() {
                *block += 1;
            }
        }
        _ => {}
    }
    if blocks.iter().sum::<usize>() > DEEPEST {
        return Err(format!("blocks are nested deeper than {DEEPEST}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prints_goes_through_the_function() {
        for (template, made) in [
            ("a {{.}} b {{ .x.y | f }}", "a {{. | go}} b {{ .x.y | f  | go}}"),
            ("{{- .x -}} y", "{{- .x | go -}} y"),
            ("{{range $i, $x := .}}{{$x}}{{else}}-{{end}}", "{{range $i, $x := .}}{{$x | go}}{{else}}-{{end}}"),
            ("{{$x := .a}}{{ $x = 1}}{{$x}}", "{{$x := .a}}{{ $x = 1}}{{$x | go}}"),
            ("{{/* a }} b */}}{{print \"}}\" `}}` '\\''}}", "{{/* a }} b */}}{{print \"}}\" `}}` '\\'' | go}}"),
            (
                "{{if eq (len .) 1}}{{with .a}}{{.}}{{end}}{{end}}",
                "{{if eq (len .) 1}}{{with .a}}{{. | go}}{{end}}{{end}}",
            ),
            ("{{define \"t\"}}x{{end}}{{template \"t\" .}}", "{{define \"t\"}}x{{end}}{{template \"t\" .}}"),
            ("{{.x", "{{.x"),
            ("{{-", "{{-"),
            ("{{ -}}", "{{ -}}"),
            ("{{}}", "{{}}"),
            ("é{{\"é\"}}é", "é{{\"é\" | go}}é"),
        ] {
            assert_eq!(through("go", template), Ok(made.to_owned()), "{template}");
        }
    }

    #[test]
    fn what_nests_too_deep_is_refused() {
        let parentheses = |n: usize| format!("{{{{{}.{}}}}}", "(".repeat(n), ")".repeat(n));
        assert!(through("go", &parentheses(DEEPEST)).is_ok());
        assert!(through("go", &parentheses(DEEPEST + 1)).is_err());
        let blocks = |n: usize| "{{if .}}".repeat(n) + &"{{end}}".repeat(n);
        assert!(through("go", &blocks(DEEPEST)).is_ok() && through("go", &blocks(DEEPEST + 1)).is_err());
        let branches = |n: usize| format!("{{{{if .}}}}{}{{{{end}}}}", "{{else if .}}".repeat(n));
        assert!(through("go", &branches(DEEPEST - 1)).is_ok() && through("go", &branches(DEEPEST)).is_err());
        assert!(through("go", &blocks(2).repeat(DEEPEST)).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "([{}()\"`'\\\\ $:=.|/*-]|if|end|é|x){0,40}") {
            let _ = through("go", &text);
        }
    }
}
