//! Handles that are written after the answer.

use std::time::{Duration, Instant};

use super::*;

/// Long enough for anything that is under way.
const LONG: Duration = Duration::from_secs(30);

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is() {
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// As ADD does it, up to its answer: the address, and its handle if that is to be written later.
fn add(addresses: &Addresses, number: usize) -> ((String, Vec<IpAddr>), Option<CasWrite>) {
    let ask = ask(number);
    let mut given = addresses.begin(&ask, None).expect("there is room");
    let handle = addresses.put_off(&mut given);
    addresses.finish(&given).expect("nothing is in the way");
    ((ask.handle, given.addresses), handle)
}

fn has(store: &OneByOne, handle: &str) -> bool {
    store.store.get(&Key::Handle(handle.to_owned())).expect("read").is_some()
}

#[test]
fn a_handle_comes_after_the_answer_and_counts_its_address() {
    let store = OneByOne::with_pool(|_, _| {});
    let (addresses, mut results) = proven(&store);
    let blocks = store.wrote(is_block);
    for number in 2..6 {
        let (given, handle) = add(&addresses, number);
        assert!(!has(&store, &given.0), "not before the answer");
        addresses.write_later(&handle.expect("a handle could be written before"));
        until("the handle", || has(&store, &given.0));
        results.push(given);
    }
    assert_eq!(store.wrote(is_block) - blocks, 4);
    all_hold(&store, &results);
}

#[test]
fn a_handle_that_is_given_back_before_it_is_written_never_comes() {
    let (gate, open) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let store = OneByOne::with_pool({
        let (gate, waits) = (gate.clone(), open.clone());
        move |_, write| {
            let end = Instant::now() + LONG;
            let made = matches!(&write.key, Key::Handle(_)) && write.value.is_some();
            while made && !gate.load(Ordering::SeqCst) && Instant::now() < end {
                waits.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let (addresses, results) = proven(&store);
    gate.store(false, Ordering::SeqCst);
    for number in 2..4 {
        let (_, handle) = add(&addresses, number);
        addresses.write_later(&handle.expect("a handle could be written before"));
    }
    // One of them is being written, the other waits.
    until("the first", || open.load(Ordering::SeqCst));
    addresses.release("net.c3", None).expect("it is looked for");
    std::thread::scope(|scope| {
        let release = scope.spawn(|| addresses.release("net.c2", None));
        std::thread::sleep(Duration::from_millis(20));
        gate.store(true, Ordering::SeqCst);
        release.join().expect("no panic").expect("it is looked for");
    });
    drop(addresses);
    all_hold(&store, &results);
    assert!(!has(&store, "net.c2") && !has(&store, "net.c3"));
}

#[test]
fn a_handle_that_cannot_be_written_is_waited_for_by_the_next_and_comes_with_the_next_run() {
    let store = OneByOne::with_pool(|_, _| {});
    let directory = tempfile::tempdir().expect("a directory");
    let (addresses, mut results) = proven(&store);
    addresses.keep_in(directory.path());
    let put_off: Vec<_> = (2..5).map(|number| add(&addresses, number)).collect();
    store.refuses_handles.store(true, Ordering::SeqCst);
    for (given, handle) in put_off {
        addresses.write_later(&handle.expect("a handle could be written before"));
        results.push(given);
    }
    until("the refusal", || !addresses.later.takes());
    // The next one hears of it.
    assert!(addresses.begin(&ask(5), None).is_err());
    drop(addresses);
    assert!((2..5).all(|number| !has(&store, &format!("net.c{number}"))));

    // One of them is gone before the next run begins.
    store.refuses_handles.store(false, Ordering::SeqCst);
    let other = Addresses::new(store.clone(), "n".into());
    other.release("net.c3", None).expect("it is looked for");
    results.retain(|(handle, _)| handle != "net.c3");
    let next = Addresses::new(store.clone(), "n".into());
    next.keep_in(directory.path());
    until("the handles", || has(&store, "net.c2") && has(&store, "net.c4"));
    until("the end", || std::fs::read_dir(directory.path()).expect("read").next().is_none());
    assert!(!has(&store, "net.c3"));
    all_hold(&store, &results);
}

#[test]
fn a_handle_that_was_there_counts_both() {
    let store = OneByOne::with_pool(|_, _| {});
    let (addresses, mut results) = proven(&store);
    let (given, handle) = add(&addresses, 0);
    results[0].1.extend(given.1);
    // A second address of the same container.
    addresses.write_later(&handle.expect("a handle could be written before"));
    until("the end", || !addresses.later.has("net.c0"));
    let held: Vec<IpAddr> = store.held().into_iter().filter(|(_, h)| h == "net.c0").map(|(a, _)| a).collect();
    assert_eq!(held.len(), 2);
}
