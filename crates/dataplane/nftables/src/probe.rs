//! What this kernel's nf_tables has, tried in a table that comes and goes in one transaction.

use std::sync::Arc;

use tortie_ruleset::{Match, Name, Rule, Verdict};

use crate::error::Error;
use crate::socket::{Socket, unavailable};
use crate::transaction::Transaction;

const TABLE: &str = "tortie-probe";

/// Whether rules can ask for marks on connections; else what the kernel says.
pub fn has_connection_marks() -> Result<(), Error> {
    takes(Match::Revoked { negate: false })
}

/// Whether rules can ask whose an address is; else what the kernel says.
pub fn has_address_types() -> Result<(), Error> {
    takes(Match::BorrowedSource { interface: Arc::from(TABLE) })
}

fn takes(condition: Match) -> Result<(), Error> {
    let mut transaction = Transaction::new(TABLE, None);
    let chain = Name::from("probe");
    transaction.table(0);
    transaction.chain(&chain, None);
    transaction.rules(&chain, &[Rule::new([condition], Verdict::Return)]);
    transaction.delete_table();
    transaction.commit(&mut Socket::open(false).map_err(unavailable)?).map(drop)
}
