//! Address management as pure compare-and-swap steps.
//!
//! An operation is a [`Plan`] inside a [`Machine`]: it asks for reads and writes, a driver answers. It knows no store,
//! clock or randomness. Operations may be dropped between any two asks and run at once on any number of nodes: no
//! address is given out twice, and none is lost to release.

mod affinity;
mod assign;
mod assign_at;
pub mod block;
mod books;
mod check;
mod collect;
mod error;
mod lookup;
mod machine;
pub mod order;
mod owner;
mod pools;
mod release;
mod release_affinity;
mod reserved;
mod settings;
mod show;
mod view;

pub use assign::{Assign, Assigned, Assignment, Request};
pub use assign_at::AssignAt;
pub use block::{Claimed, Holder, Now};
pub use check::{Problem, Report, check};
pub use collect::{Collect, Collected};
pub use error::{IpamError, describe};
pub use lookup::{AddressesOf, WhoHas};
pub use machine::{Answer, Ask, CasWrite, Expect, Fact, Machine, Next, Outcome, Pause, Plan, drive};
pub use owner::Owner;
pub use pools::{Client, Rejected, choose};
pub use release::{Release, ReleaseHandle, Released};
pub use release_affinity::{ReleaseAffinities, Scope};
pub use reserved::Reserved;
pub use settings::{Pool, Settings, check_config, configure, default_config};
pub use show::{BlockUse, Borrowed, PoolFill, PoolUse, borrowed, fill, usage};
pub use view::{Held, View};
