//! Policy routing rules, as far as they choose a table.

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteProtocol as WireProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use tortie_net::Family;

use crate::handle::wire_family;
use crate::route_codec::table_byte;
use crate::wire::Request;
use crate::{Handle, Result, RouteProtocol};

/// A rule that sends packets to a routing table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The family that it applies to.
    pub family: Family,
    /// Order: lower numbers first.
    pub priority: u32,
    /// The table to look in.
    pub table: u32,
    /// Mark and mask that packets must have.
    pub mark: Option<(u32, u32)>,
    /// Whether it applies to packets that do not match.
    pub inverted: bool,
    /// The prefix that sources must be in.
    pub from: Option<IpNet>,
    /// The prefix that destinations must be in.
    pub to: Option<IpNet>,
    /// Who made it.
    pub protocol: RouteProtocol,
}

impl Handle {
    /// The rules of a family that choose a table, in order.
    pub fn rules(&mut self, family: Family) -> Result<Vec<Rule>> {
        let mut message = RuleMessage::default();
        message.header.family = wire_family(family);
        let mut rules = self.list(&Request::new(libc::RTM_GETRULE, 0, &message), parse, "list rules")?;
        rules.sort_by_key(|rule| rule.priority);
        Ok(rules)
    }

    /// Adds a rule; [`crate::Error::Exists`] when there is the same one.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<()> {
        let request = Request::new(libc::RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, &message(rule));
        self.one(request, || format!("add {} rule {}", rule.family, rule.priority))
    }

    /// Deletes a rule.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<()> {
        let request = Request::new(libc::RTM_DELRULE, 0, &message(rule));
        self.one(request, || format!("delete {} rule {}", rule.family, rule.priority))
    }
}

fn message(rule: &Rule) -> RuleMessage {
    let Rule { family, priority, table, mark, inverted, from, to, protocol } = rule;
    let mut message = RuleMessage::default();
    message.header.family = wire_family(*family);
    message.header.action = RuleAction::ToTable;
    message.header.table = table_byte(*table);
    if *inverted {
        message.header.flags = RuleFlags::Invert;
    }
    message.attributes.push(RuleAttribute::Table(*table));
    message.attributes.push(RuleAttribute::Priority(*priority));
    message.attributes.push(RuleAttribute::Protocol(WireProtocol::from(protocol.0)));
    if let Some((value, mask)) = mark {
        message.attributes.push(RuleAttribute::FwMark(*value));
        message.attributes.push(RuleAttribute::FwMask(*mask));
    }
    if let Some(net) = from {
        message.header.src_len = net.prefix_len();
        message.attributes.push(RuleAttribute::Source(net.network()));
    }
    if let Some(net) = to {
        message.header.dst_len = net.prefix_len();
        message.attributes.push(RuleAttribute::Destination(net.network()));
    }
    message
}

pub(crate) fn parse(body: &[u8]) -> Option<Rule> {
    let message = RuleMessage::parse(body).ok()?;
    let header = message.header;
    let family = match header.family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    if header.action != RuleAction::ToTable {
        return None;
    }
    let mut rule = Rule {
        family,
        priority: 0,
        table: u32::from(header.table),
        mark: None,
        inverted: header.flags.contains(RuleFlags::Invert),
        from: None,
        to: None,
        protocol: RouteProtocol(0),
    };
    let (mut mark, mut mask) = (None, u32::MAX);
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Table(table) => rule.table = table,
            RuleAttribute::Priority(priority) => rule.priority = priority,
            RuleAttribute::Protocol(protocol) => rule.protocol = RouteProtocol(protocol.into()),
            RuleAttribute::FwMark(value) => mark = Some(value),
            RuleAttribute::FwMask(value) => mask = value,
            RuleAttribute::Source(ip) => rule.from = IpNet::new(ip, header.src_len).ok(),
            RuleAttribute::Destination(ip) => rule.to = IpNet::new(ip, header.dst_len).ok(),
            _ => {}
        }
    }
    rule.mark = mark.map(|value| (value, mask));
    Some(rule)
}
