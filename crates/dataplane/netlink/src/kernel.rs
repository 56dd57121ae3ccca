//! The port that route programming needs of a kernel, so that it can run on a fake one.

use crate::{Handle, Link, Result, Route, RouteChange, RouteFilter};

/// What route programming needs of a kernel.
pub trait RouteKernel {
    /// All links, by index.
    fn links(&mut self) -> Result<Vec<Link>>;

    /// The routes that pass a filter, in normal form and sorted.
    fn routes(&mut self, filter: &RouteFilter) -> Result<Vec<Route>>;

    /// Makes changes; one result for each, in order. The outer error: nothing is known about any of them.
    fn change_routes(&mut self, changes: &[RouteChange<&Route>]) -> Result<Vec<Result<()>>>;
}

impl RouteKernel for Handle {
    fn links(&mut self) -> Result<Vec<Link>> {
        Handle::links(self)
    }

    fn routes(&mut self, filter: &RouteFilter) -> Result<Vec<Route>> {
        Handle::routes(self, filter)
    }

    fn change_routes(&mut self, changes: &[RouteChange<&Route>]) -> Result<Vec<Result<()>>> {
        Handle::change_routes(self, changes)
    }
}

impl<K: RouteKernel + ?Sized> RouteKernel for &mut K {
    fn links(&mut self) -> Result<Vec<Link>> {
        (**self).links()
    }

    fn routes(&mut self, filter: &RouteFilter) -> Result<Vec<Route>> {
        (**self).routes(filter)
    }

    fn change_routes(&mut self, changes: &[RouteChange<&Route>]) -> Result<Vec<Result<()>>> {
        (**self).change_routes(changes)
    }
}
