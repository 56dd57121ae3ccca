//! The language as upstream's own tables describe it: what is accepted, what it means, how it is printed and hashed.

use std::collections::BTreeMap;

use tortie_selector::{Inherited, MAX_DEPTH, Selector};

fn selector(text: &str) -> Selector {
    Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split_whitespace().map(|pair| pair.split_once('=').expect("key=value"));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn operators_mean_what_they_say() {
    for (text, matching, other) in [
        ("a == 'b'", &["a=b", "a=b c=d"][..], &["", "a=c", "c=d"][..]),
        ("a != 'b'", &["", "a=c", "b=b"], &["a=b"]),
        ("a == 'b' && c == 'd'", &["a=b c=d"], &["", "a=b", "c=d", "a=b c=e"]),
        ("a == 'b' || c == 'd'", &["a=b", "c=d", "a=b c=d"], &["", "a=e c=e"]),
        (r#"a in {"'", '"', "c"}"#, &["a=c", "a='", "a=\""], &["", "a=e"]),
        (r#"a not in {"'", '"', "c"}"#, &["", "a=e"], &["a=c", "a='", "a=\""]),
        ("a contains 'a'", &["a=a", "a=bab"], &["", "a=b", "b=aaa"]),
        ("a starts with 'a'", &["a=a", "a=abb"], &["", "a=baa"]),
        ("a ends with 'a'", &["a=a", "a=bba"], &["", "a=aab"]),
        ("!a in {'a'}", &["", "a=b"], &["a=a"]),
        ("a in {}", &[], &["", "a=a", "a="]),
        ("a not in {}", &["", "a=a"], &[]),
        ("a in {'a',}", &["a=a"], &["a=b"]),
        ("has(a)", &["a="], &["", "b=b"]),
        ("!!! has(a)", &["", "b=a"], &["a=a"]),
        ("", &["", "a=b"], &[]),
        (" \t", &["", "a=b"], &[]),
        ("global()", &["", "a=b"], &[]),
        // && binds closer than ||.
        ("has(a) || has(b) && has(c)", &["a=1", "b=1 c=1"], &["b=1", "c=1"]),
        ("(has(a) || has(b)) && has(c)", &["a=1 c=1"], &["a=1"]),
        // ! takes the next term only.
        ("!has(a) && has(b)", &["b=1"], &["a=1 b=1"]),
        ("!(!has(a) || has(b))", &["a=1"], &["a=1 b=1", ""]),
        // Words are operators only after a label.
        ("in == 'x' && not notin {'y'} && has == 'z'", &["in=x has=z"], &["in=x has=z not=y"]),
        ("a startswith 'x' && b endswith 'y'", &["a=xx b=yy"], &["a=x"]),
        ("a\tnot\tin\t{'x'}", &[""], &["a=x"]),
    ] {
        let parsed = selector(text);
        let again = selector(parsed.canonical());
        for good in matching {
            assert!(parsed.matches(&labels(good)) && again.matches(&labels(good)), "{text} on {good:?}");
        }
        for bad in other {
            assert!(!parsed.matches(&labels(bad)) && !again.matches(&labels(bad)), "{text} on {bad:?}");
        }
    }
}

#[test]
fn wrong_text_is_refused_with_the_place_and_what_was_expected() {
    for (text, position, expected) in [
        ("b == b", 5, "a string in quotes"),
        ("b contains b", 11, "a string in quotes"),
        ("'b1' == b", 0, "a label, has(LABEL), all(), global(), '!' or '('"),
        ("b", 1, "==, !=, in, not in, contains, starts with or ends with"),
        ("a b", 2, "an operator after the label: ==, !=, in, not in, contains, starts with, ends with"),
        ("a inx {'b'}", 2, "an operator after the label: ==, !=, in, not in, contains, starts with, ends with"),
        ("!", 1, "a label, has(LABEL), all(), global(), '!' or '('"),
        ("foo == 'bar' &", 13, "'&&'"),
        ("foo == 'bar' |", 13, "'||'"),
        ("foo = 'bar'", 4, "'=='"),
        ("foo in {'', ||", 12, "a string in quotes, ',' or '}'"),
        ("foo in ''", 7, "'{' and a set of strings"),
        ("foo == \"FOO'", 7, "a closing quote for this string"),
        ("(a == 'foo'", 11, "'&&', '||' or ')'"),
        (")", 0, "a label, has(LABEL), all(), global(), '!' or '('"),
        ("()", 1, "a label, has(LABEL), all(), global(), '!' or '('"),
        ("a == 'b' c", 9, "'&&', '||' or the end"),
        ("a == 'b' || %", 12, "a label, has(LABEL), all(), global(), '!' or '('"),
        ("has(foo) &&", 11, "a label, has(LABEL), all(), global(), '!' or '('"),
        ("has(a", 5, "')' after has("),
        ("has (a)", 4, "==, !=, in, not in, contains, starts with or ends with"),
        ("all(x)", 4, "')' after all("),
        ("a\n== 'b'", 1, "an operator after the label: ==, !=, in, not in, contains, starts with, ends with"),
    ] {
        let error = Selector::parse(text).expect_err(text);
        assert_eq!((error.position, error.expected.as_str()), (position, expected), "{text}");
    }
    assert_eq!(
        Selector::parse("a == b").expect_err("wrong").to_string(),
        "bad selector at byte 5: found \"b\", expected a string in quotes"
    );
}

#[test]
fn labels_and_nesting_are_bounded() {
    let long = "x".repeat(512);
    assert!(Selector::parse(&format!("has({long})")).is_ok());
    assert!(Selector::parse(&format!("has({long}x)")).is_err());
    let nested = |depth: usize| format!("{}all(){}", "(".repeat(depth), ")".repeat(depth));
    assert!(Selector::parse(&nested(MAX_DEPTH)).is_ok());
    assert!(Selector::parse(&nested(MAX_DEPTH + 1)).is_err());
    assert!(Selector::parse(&nested(1_000_000)).is_err());
    assert!(Selector::parse(&format!("{}all()", "!".repeat(1_000_000))).is_ok());
}

#[test]
fn the_canonical_text_and_id_are_upstreams() {
    for (text, canonical, id) in [
        ("", "all()", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
        (" (all() )", "all()", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
        ("! (has( b)||! has(a ))", "!(has(b) || !has(a))", "s:Iss0uCleLYv1GSv_pNm7hAO58kE9jAx1NKyG3Q"),
        (r#"! (a == "b"&&! c != "d")"#, r#"!(a == "b" && !c != "d")"#, "s:lh3haoY1ikTRkd4UZu0nWSaIBknYLPJLX16d-w"),
        (r#"a == '"'"#, r#"a == '"'"#, ""),
        (r#"a contains "'""#, r#"a contains "'""#, ""),
        (r#"a startswith 'x'"#, r#"a starts with "x""#, ""),
        (r#"a endswith 'x'"#, r#"a ends with "x""#, ""),
        (r#"a in {"z", 'z', "x", "y", "x", "a"}"#, r#"a in {"a", "x", "y", "z"}"#, ""),
        ("a notin {}", "a not in {}", ""),
        ("has(a) && has(b) && has(c)", "(has(a) && has(b) && has(c))", ""),
        ("has(a) && (has(b) && has(c))", "(has(a) && (has(b) && has(c)))", ""),
        ("has(a) || has(b) && has(c)", "(has(a) || (has(b) && has(c)))", ""),
        ("!(k == 'v')", "!k == \"v\"", ""),
    ] {
        let parsed = selector(text);
        assert_eq!(parsed.canonical(), canonical);
        assert_eq!(selector(canonical).canonical(), canonical);
        assert_eq!(parsed, selector(canonical));
        if !id.is_empty() {
            assert_eq!(parsed.id(), id, "{text}");
        }
    }
}

#[test]
fn namespace_and_service_account_selectors_become_endpoint_selectors() {
    for (text, namespace) in [
        ("k == 'v'", "pcns.k == \"v\""),
        (
            "!(!(k == 'v' && has(t) || all()) && a in {'b', 'c'})",
            "!(!((pcns.k == \"v\" && has(pcns.t)) || has(projectcalico.org/namespace)) && pcns.a in {\"b\", \"c\"})",
        ),
        ("", "has(projectcalico.org/namespace)"),
        ("global()", "!has(projectcalico.org/namespace)"),
        ("k not in {'v'}", "pcns.k not in {\"v\"}"),
    ] {
        assert_eq!(selector(text).rewrite_for_namespace().canonical(), namespace);
    }
    assert_eq!(selector("has(k)").rewrite_for_service_account().canonical(), "has(pcsa.k)");
    assert_eq!(selector("all()").rewrite_for_service_account().canonical(), "has(projectcalico.org/serviceaccount)");
}

#[test]
fn selectors_are_joined() {
    let (a, b) = (selector("has(a) || has(b)"), selector("c == 'd'"));
    assert_eq!(Selector::and(&a, &b).canonical(), "((has(a) || has(b)) && c == \"d\")");
    assert_eq!(Selector::and(&Selector::all(), &b), b);
    assert_eq!(Selector::and(&a, &Selector::all()), a);
    assert!(Selector::all().is_all() && !a.is_all());
    assert_eq!(Selector::equals("a", "x\"y").expect("fits").canonical(), "a == 'x\"y'");
    assert!(Selector::equals("a", "\"'").is_none() && Selector::equals("a b", "c").is_none());
}

#[test]
fn own_labels_win_over_those_of_parents_and_earlier_parents_over_later() {
    let (own, first, second) = (labels("a=own"), labels("a=first b=first"), labels("b=second c=second"));
    let inherited = Inherited { own: &own, parents: &[&first, &second] };
    assert!(selector("a == 'own' && b == 'first' && c == 'second' && !has(d)").matches(&inherited));
}

#[test]
fn restrictions_are_what_upstream_finds() {
    let show = |text: &str| {
        let mut out = Vec::new();
        for (key, r) in selector(text).restrictions() {
            let present = if r.must_be_present { "+" } else { "" };
            let absent = if r.must_be_absent { "-" } else { "" };
            let values = r.one_of.map(|values| format!("{values:?}")).unwrap_or_default();
            out.push(format!("{key}{present}{absent}{values}").replace(['"', ' '], ""));
        }
        out.join(" ")
    };
    for (text, expected) in [
        ("all()", ""),
        ("global()", ""),
        ("a == 'v'", "a+[v]"),
        ("has(a)", "a+"),
        ("a in {'v1','v2'}", "a+[v1,v2]"),
        ("a not in {'v1'}", ""),
        ("a contains 'x'", "a+"),
        ("a ends with 'x'", "a+"),
        ("a starts with 'x'", "a+"),
        ("a != 'v'", ""),
        ("a == 'v1' && a == 'v2'", "a+[]"),
        ("a == 'v1' && has(a)", "a+[v1]"),
        ("a in {'v1','v2'} && a in {'v2','v3'}", "a+[v2]"),
        ("has(a) && !has(a)", "a+-"),
        ("a == 'v1' && b == 'v2'", "a+[v1] b+[v2]"),
        ("all() && a == 'v1'", "a+[v1]"),
        ("a == 'v1' || a == 'v2'", "a+[v1,v2]"),
        ("has(a) || a == 'v2'", "a+"),
        ("a == 'v2' || has(b)", ""),
        ("a == 'v2' || (has(b) && has(a))", "a+"),
        ("a == 'v1' || all()", ""),
        ("!(a == 'v')", ""),
        ("!has(a)", "a-"),
        ("!has(a) || !has(a) && has(b)", "a-"),
        ("!!has(a)", "a+"),
    ] {
        assert_eq!(show(text), expected, "{text}");
    }
    for never in ["a == 'v1' && a == 'v2'", "has(a) && !has(a)"] {
        let selector = selector(never);
        let [("a", restriction)] = &selector.restrictions()[..] else { panic!("{never} demands something of a") };
        assert!(!restriction.satisfiable(), "{never}");
    }
}
