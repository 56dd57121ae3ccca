//! The main loop: takes in what the stores tell, and lets each controller do what is due.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tortie_api::{Kind, Resource};
use tortie_control::{Course, Moment, Running, StaleNodes, Users, copied_filter, node_grace};
use tortie_facts::Filter;
use tortie_http::Listener;
use tortie_store::mirror::{Mirror, Options};
use tracing::{info, warn};

use crate::collect::{Collector, Pictures};
use crate::compaction::Compaction;
use crate::finalizers::Finalizers;
use crate::load_balancer::LoadBalancer;
use crate::open::{self, Stores};
use crate::picture::{Picture, default_of};
use crate::report::{self, Board};
use crate::seat::{Keeper, Seat};
use crate::{ControllersArgs, configuration, copies, nodes};

/// How long one turn waits for news.
const TICK: Duration = Duration::from_millis(250);

/// What happens at once is gathered for this long before it is acted on.
const GATHER: Duration = Duration::from_secs(1);

/// How often nodes are looked at without news, and how long a fault is left alone.
const EVERY: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(5);

/// How old the metrics may be.
const METRICS: Duration = Duration::from_secs(15);

/// What the controllers are wired to.
pub struct Wiring {
    /// The datastores.
    pub stores: Stores,
    /// Who leads.
    pub seat: Seat,
    /// The environment.
    pub env: BTreeMap<String, OsString>,
    /// Where they tell of themselves.
    pub board: Arc<Board>,
}

/// The controllers.
pub struct Controllers {
    stores: Stores,
    env: BTreeMap<String, OsString>,
    board: Arc<Board>,
    keeper: Keeper,
    mirror: Mirror,
    beside: Option<Mirror>,
    picture: Picture,
    kubernetes: Picture,
    started: Instant,
    guid: Option<String>,
    collector: Collector,
    compaction: Compaction,
    compaction_due: Moment,
    stale: StaleNodes,
    nodes_due: Moment,
    copies_due: Moment,
    /// Once it is known whether they are needed.
    finalizers: Option<Option<Finalizers>>,
    finalizers_due: Moment,
    balancer: Option<LoadBalancer>,
    balancer_due: Moment,
    metrics: Option<(u16, Listener)>,
    metrics_due: Moment,
}

impl Controllers {
    /// Starts to follow the stores.
    ///
    /// # Errors
    /// If the system gives no thread, or the environment holds what can't be used.
    pub fn start(wiring: Wiring) -> Result<Controllers> {
        let Wiring { stores, seat, env, board } = wiring;
        // What is wrong with a variable is told before anything else.
        configuration::running(&Picture::default(), &env, stores.kubernetes)?;
        board.set("Startup", Err("the datastore is not followed yet".to_owned()));
        let main: Arc<dyn tortie_store::Reader> = stores.main.clone();
        let mirror =
            Mirror::spawn(main, Picture::filter(stores.beside.is_some()), Options::default()).context("no thread")?;
        let beside = match &stores.beside {
            Some(store) => {
                let reader: Arc<dyn tortie_store::Reader> = store.clone();
                let filter = Filter::Any(vec![Users::filter(), copied_filter()]);
                Some(Mirror::spawn(reader, filter, Options::default()).context("no thread")?)
            }
            None => None,
        };
        Ok(Controllers {
            stores,
            env,
            board,
            keeper: Keeper::start(seat)?,
            mirror,
            beside,
            picture: Picture::with_copies_alone(),
            kubernetes: Picture::default(),
            started: Instant::now(),
            guid: None,
            collector: Collector::default(),
            compaction: Compaction::default(),
            compaction_due: Moment::ZERO,
            stale: StaleNodes::default(),
            nodes_due: Moment::ZERO,
            copies_due: Moment::ZERO,
            finalizers: None,
            finalizers_due: Moment::ZERO,
            balancer: None,
            balancer_due: Moment::ZERO,
            metrics: None,
            metrics_due: Moment::ZERO,
        })
    }

    /// Whether everything that decisions need is known and current.
    fn in_sync(&self) -> bool {
        self.picture.in_sync() && (self.beside.is_none() || self.kubernetes.in_sync())
    }

    fn take_in(&mut self) {
        let at = self.started.elapsed();
        let mut news = self.picture.apply(self.mirror.wait(TICK));
        if let Some(beside) = &self.beside {
            news |= self.kubernetes.apply(beside.take());
        }
        if news {
            self.nodes_due = self.nodes_due.min(at + GATHER);
            self.copies_due = self.copies_due.min(at);
            self.balancer_due = self.balancer_due.min(at);
            self.finalizers_due = self.finalizers_due.min(at);
        }
        if self.finalizers.as_mut().and_then(Option::as_mut).is_some_and(Finalizers::take_in) {
            self.finalizers_due = self.finalizers_due.min(at);
        }
        if self.balancer.as_mut().is_some_and(LoadBalancer::take_in) {
            self.balancer_due = self.balancer_due.min(at);
        }
        let holds = |picture: &Picture| if picture.in_sync() { Ok(()) } else { Err(picture.reason()) };
        self.board.set("CalicoDatastore", holds(&self.picture));
        if self.beside.is_some() {
            self.board.set("KubeAPIServer", holds(&self.kubernetes));
        } else if self.stores.kubernetes {
            self.board.set("KubeAPIServer", holds(&self.picture));
        }
        if self.in_sync() {
            self.board.set("Startup", Ok(()));
        }
    }

    /// Takes in what happened and does what is due; `stop`: whether to leave long work.
    ///
    /// # Errors
    /// What can't be lived with: a variable that can't be used, or the datastore of another cluster.
    pub fn turn(&mut self, stop: &dyn Fn() -> bool) -> Result<()> {
        self.take_in();
        self.board.turned();
        if !self.in_sync() {
            return Ok(());
        }
        let locked = self.check_cluster()?;
        let running = configuration::running(&self.picture, &self.env, self.stores.kubernetes)?;
        self.serve(&running);
        if locked || !self.keeper.leads() {
            return Ok(());
        }
        let at = self.started.elapsed();
        if at >= self.nodes_due {
            self.nodes_due = at + node_grace(running.leak_grace()).min(EVERY);
            if let Err(error) = self.nodes(&running, at) {
                warn!("{error:#}");
                self.nodes_due = at + AGAIN;
            }
        }
        if self.stores.kubernetes && at >= self.finalizers_due {
            self.finalizers_due = at + EVERY;
            if let Err(error) = self.finalize() {
                warn!("not every pool and tier is as it should be, which is tried again: {error:#}");
                self.finalizers_due = at + AGAIN;
            }
        }
        if let (Some(etcd), true) = (&self.stores.etcd, at >= self.compaction_due) {
            let period = running.spec.etcdv3_compaction_period.map(|period| period.as_std()).unwrap_or_default();
            if let Err(error) = self.compaction.turn(etcd, at, period) {
                warn!("etcd's history is not compacted, which is tried again: {error}");
                self.compaction_due = at + EVERY;
            }
        }
        let (keeper, board) = (&self.keeper, &self.board);
        let go_on = || {
            board.turned();
            keeper.leads() && !stop()
        };
        if let (Some(api), true) = (&self.stores.beside, at >= self.copies_due) {
            self.copies_due = at + EVERY;
            let beside: (&dyn tortie_store::Store, &Picture) = (&**api, &self.kubernetes);
            if let Err(error) = copies::keep(&*self.stores.main, &self.picture, beside, &running, &go_on) {
                warn!("not everything is as Kubernetes has it, which is tried again: {error:#}");
                self.copies_due = at + AGAIN;
            }
        }
        if let (Some(api), Some(settings)) = (&self.stores.api, &running.spec.controllers.load_balancer) {
            let balancer = match &mut self.balancer {
                Some(balancer) => balancer,
                None => self.balancer.insert(LoadBalancer::start(Arc::clone(api))?),
            };
            if at >= self.balancer_due {
                self.balancer_due = at + EVERY;
                let which = settings.assign_ips.unwrap_or_default();
                if let Err(error) = balancer.turn(&*self.stores.main, &self.picture, which, &go_on) {
                    warn!("not every service has its load-balancer address, which is tried again: {error:#}");
                    self.balancer_due = at + AGAIN;
                }
            }
        }
        if running.spec.controllers.node.is_some() && self.collector.is_due(at) {
            let seen = match (self.picture.course(), self.kubernetes.course()) {
                (Course::Forward, Course::Forward) => Course::Forward,
                (Course::Back, _) | (_, Course::Back) => Course::Back,
            };
            let beside = self.beside.as_ref().map(|_| &self.kubernetes);
            let pictures = Pictures { main: &self.picture, beside };
            if let Err(error) = self.collector.turn(&self.stores, &pictures, seen, (at, running.leak_grace()), &go_on) {
                warn!("addresses are not collected completely, which is tried again: {error:#}");
            }
        }
        Ok(())
    }

    fn finalize(&mut self) -> Result<()> {
        let Some(api) = &self.stores.api else { return Ok(()) };
        let known = match &self.finalizers {
            Some(known) => known,
            None => self.finalizers.insert(Finalizers::start(api)?),
        };
        known.as_ref().map_or(Ok(()), |one| one.turn(&*self.stores.main, &self.picture))
    }

    fn nodes(&mut self, running: &Running, at: Moment) -> Result<()> {
        let store = &*self.stores.main;
        configuration::publish(store, &self.picture, running)?;
        nodes::host_endpoints(store, &self.picture, running)?;
        if let (Some(api), true) = (&self.stores.beside, running.spec.controllers.node.is_some()) {
            if running.syncs_labels() {
                nodes::labels(store, &self.picture, &self.kubernetes)?;
            }
            nodes::stale(
                store,
                &self.picture,
                (&**api, &self.kubernetes),
                &mut self.stale,
                at,
                node_grace(running.leak_grace()),
            )?;
        }
        Ok(())
    }

    /// Whether the datastore is locked. One that became another cluster's ends the process: all that it knows is of
    /// the other one.
    fn check_cluster(&mut self) -> Result<bool> {
        let Some((Resource::ClusterInformation(info), _)) =
            self.picture.resource(&default_of(Kind::ClusterInformation))
        else {
            return Ok(false);
        };
        let guid = &info.spec.cluster_guid;
        match &self.guid {
            Some(known) if known != guid && !guid.is_empty() => bail!(
                "the datastore ({}) was of the cluster {known} and is of the cluster {guid} now",
                self.stores.place
            ),
            _ if !guid.is_empty() => self.guid = Some(guid.clone()),
            _ => {}
        }
        let locked = info.spec.datastore_ready == Some(false);
        if locked {
            self.collector.forget();
        }
        Ok(locked)
    }

    /// Keeps the metrics served where the configuration says. A port that is taken is tried again: work goes on.
    fn serve(&mut self, running: &Running) {
        let at = self.started.elapsed();
        let port = running.spec.prometheus_metrics_port.and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
        if self.metrics.as_ref().is_some_and(|(served, _)| *served != port) {
            self.metrics = None;
            self.metrics_due = at;
        }
        if port == 0 || at < self.metrics_due {
            return;
        }
        self.metrics_due = at + METRICS;
        if self.metrics.is_none() {
            match report::listen(port, Arc::clone(&self.board)) {
                Ok(listener) => self.metrics = Some((port, listener)),
                Err(error) => {
                    warn!("prometheusMetricsPort {port} can't be served, which is tried again: {error}");
                    self.metrics_due = at + AGAIN;
                }
            }
        }
        self.board.set_metrics(self.collector.metrics(&self.picture));
    }
}

/// Runs the controllers by the environment until a signal comes.
pub(crate) fn run(args: &ControllersArgs) -> Result<()> {
    let ControllersArgs { status_file, health_port } = args;
    let env: BTreeMap<String, OsString> =
        std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value)).collect();
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let (stores, seat) = open::open(&env)?;
    info!(datastore = stores.place, kubernetes_beside = stores.beside.is_some(), "controllers start");
    let board = Board::new((!status_file.is_empty()).then(|| PathBuf::from(status_file)));
    let health = match health_port {
        0 => None,
        port => Some(report::listen(*port, Arc::clone(&board)).with_context(|| format!("health port {port}"))?),
    };
    let mut controllers = Controllers::start(Wiring { stores, seat, env, board })?;
    let ending = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watched = Arc::clone(&ending);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.forever().next().is_some() {
            watched.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    })?;
    let stop = || ending.load(std::sync::atomic::Ordering::Relaxed);
    while !stop() {
        controllers.turn(&stop)?;
    }
    info!("controllers end");
    drop(health);
    Ok(())
}
