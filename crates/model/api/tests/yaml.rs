//! What is written as YAML: Go's quoting, order, indents and wrapping.

use serde_json::json;
use tortie_api::to_yaml;

#[test]
fn text_is_quoted_exactly_where_go_quotes_it() {
    for (text, written) in [
        ("plain", "plain"),
        ("yes", "\"yes\""),
        ("on", "\"on\""),
        ("n", "\"n\""),
        ("null", "\"null\""),
        ("~", "\"~\""),
        ("", "\"\""),
        ("1", "\"1\""),
        ("010", "\"010\""),
        ("1.5", "\"1.5\""),
        ("1_000", "\"1_000\""),
        ("12:30", "\"12:30\""),
        ("2023-07-25T06:42:33Z", "\"2023-07-25T06:42:33Z\""),
        ("2023-07-25", "\"2023-07-25\""),
        ("<<", "\"<<\""),
        (".inf", "\".inf\""),
        ("10.0.0.0/16", "10.0.0.0/16"),
        ("10.0.0.1", "10.0.0.1"),
        ("fd00::/64", "fd00::/64"),
        ("all()", "all()"),
        ("!has(x)", "'!has(x)'"),
        ("a == 'b'", "a == 'b'"),
        ("'quoted'", "'''quoted'''"),
        ("* all", "'* all'"),
        ("*", "'*'"),
        ("a: b", "'a: b'"),
        ("a:", "'a:'"),
        ("a #b", "'a #b'"),
        ("a#b", "a#b"),
        ("- a", "'- a'"),
        ("-a", "-a"),
        (" a", "' a'"),
        ("a ", "'a '"),
        ("{a", "'{a'"),
        ("a{", "a{"),
        ("@a", "'@a'"),
        ("%a", "'%a'"),
        ("tab\there", "\"tab\\there\""),
        ("é", "é"),
        ("---", "'---'"),
        ("0x1G", "0x1G"),
    ] {
        assert_eq!(to_yaml(&json!({ "k": text })), format!("k: {written}\n"), "{text:?}");
    }
}

#[test]
fn collections_are_laid_out_as_go_lays_them_out() {
    let value = json!({
        "spec": {"list": [{"b": 1, "a": [1, [2, 3], []]}, "x"], "none": null, "empty": {}, "num": 1.5, "whole": 100.0},
        "k10": true, "k9": false, "apiVersion": "v", "Zeta": 1,
    });
    let written = "\
Zeta: 1
apiVersion: v
k9: false
k10: true
spec:
  empty: {}
  list:
  - a:
    - 1
    - - 2
      - 3
    - []
    b: 1
  - x
  none: null
  num: 1.5
  whole: 100
";
    assert_eq!(to_yaml(&value), written);
    assert_eq!(to_yaml(&json!([])), "[]\n");
    assert_eq!(to_yaml(&json!([{"a": 1}, 2])), "- a: 1\n- 2\n");
}

#[test]
fn text_of_several_lines_is_a_block() {
    for (text, written) in [
        ("a\nb\n", "k: |\n  a\n  b\n"),
        ("a\nb", "k: |-\n  a\n  b\n"),
        ("a\n\n", "k: |+\n  a\n\n"),
        (" a\nb", "k: |2-\n   a\n  b\n"),
        ("a\n\nb\n", "k: |\n  a\n\n  b\n"),
        ("a \nb", "k: \"a \\nb\"\n"),
    ] {
        assert_eq!(to_yaml(&json!({ "k": text })), written, "{text:?}");
    }
    assert_eq!(to_yaml(&json!(["a\nb"])), "- |-\n  a\n  b\n");
}

#[test]
fn long_text_goes_on_in_the_next_line() {
    let words = "word ".repeat(30);
    let words = words.trim_end();
    let written = to_yaml(&json!({"metadata": {"selector": words}}));
    let lines: Vec<&str> = written.lines().collect();
    assert_eq!(lines.len(), 3, "{written}");
    assert!(
        lines[1].starts_with("  selector: word") && lines[1].chars().count() > 80 && lines[1].len() < 90,
        "{written}"
    );
    assert!(lines[2].starts_with("    word"), "{written}");
}
