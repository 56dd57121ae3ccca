//! Lines about packets: a question, and the oracle's answer behind ` => `. A question that ends in `staged` asks what
//! would be if staged policies were enforced.

use tortie_desired::Tables;
use tortie_net::Protocol;
use tortie_verdict::{Packet, Source, Target, evaluate, with_staged};

/// The question of a line that may carry an answer.
pub fn question(line: &str) -> String {
    line.split(" => ").next().unwrap_or(line).trim().to_owned()
}

/// The line with its answer: the verdict and the step that decided.
pub fn answer(tables: &Tables, question: &str) -> String {
    let words: Vec<&str> = question.split_whitespace().collect();
    let [from, src, dst, protocol, rest @ ..] = words.as_slice() else {
        panic!("{question:?} is no INTERFACE SOURCE DESTINATION PROTOCOL [PORT]")
    };
    let (src, dst) = (src.parse().expect("a source address"), dst.parse().expect("a destination address"));
    let packet = if *protocol == "ping" {
        Packet::ping(src, dst)
    } else {
        let protocol = Protocol::from_name(protocol).expect("a protocol's name");
        let port = rest.first().expect("a port").parse().expect("a port number");
        Packet { protocol, ..Packet::tcp(src, 40000, dst, port) }
    };
    let source = if *from == "host" { Source::Host } else { Source::Interface(from) };
    let target = if rest.contains(&"to-host") { Target::Host } else { Target::Routed };
    let staged = rest.contains(&"staged").then(|| with_staged(tables));
    let verdict = evaluate(staged.as_ref().unwrap_or(tables), &packet, source, target);
    let why = verdict.steps.last().map_or_else(|| "no step".to_owned(), ToString::to_string);
    format!("{question} => {}: {why}", if verdict.allowed { "allowed" } else { "denied" })
}
