//! From BGPFilter resources to filters whose texts are read once.
//!
//! What can't be read is told as a problem, and its rule refuses instead: a filter never lets more through than it says.

use tortie_api::{
    BgpFilterAction, BgpFilterAddCommunity, BgpFilterCommunityMatch, BgpFilterMatchOperator, BgpFilterOperation,
    BgpFilterPeerType, BgpFilterPrefixLength, BgpFilterPrependAsPath, BgpFilterRule, BgpFilterSetPriority,
    BgpFilterSpec,
};
use tortie_desired::{BgpFilter, Community, FilterOperation, FilterRule, PrefixMatch, PrefixOperator};
use tortie_net::Family;

/// Reads a filter.
pub(crate) fn filter(name: &str, spec: &BgpFilterSpec, problems: &mut Vec<String>) -> BgpFilter {
    let BgpFilterSpec { export_v4, import_v4, export_v6, import_v6 } = spec;
    let mut list = |field: &str, rules: &[BgpFilterRule], family: Family| -> Vec<FilterRule> {
        rules
            .iter()
            .enumerate()
            .map(|(at, rule)| read_or_refuse(rule, family, &format!("spec.{field}[{at}]"), problems))
            .collect()
    };
    BgpFilter {
        name: name.into(),
        import_v4: list("importV4", import_v4, Family::V4),
        import_v6: list("importV6", import_v6, Family::V6),
        export_v4: list("exportV4", export_v4, Family::V4),
        export_v6: list("exportV6", export_v6, Family::V6),
    }
}

fn read_or_refuse(rule: &BgpFilterRule, family: Family, at: &str, problems: &mut Vec<String>) -> FilterRule {
    read(rule, family).unwrap_or_else(|problem| {
        problems.push(format!("{at}.{problem}; the rule refuses every route"));
        FilterRule {
            prefix: None,
            learned: false,
            interface: None,
            internal: None,
            community: None,
            as_path_prefix: Vec::new(),
            priority: None,
            accept: false,
            operations: Vec::new(),
        }
    })
}

fn read(rule: &BgpFilterRule, family: Family) -> Result<FilterRule, String> {
    let BgpFilterRule {
        cidr,
        prefix_length,
        source,
        interface,
        match_operator,
        peer_type,
        communities,
        as_path_prefix,
        priority,
        action,
        operations,
    } = rule;
    let prefix = match (cidr.is_empty(), match_operator) {
        (true, _) => None,
        (false, None) => return Err("matchOperator: missing beside cidr".to_owned()),
        (false, Some(operator)) => {
            let net = cidr.net().filter(|net| Family::of_net(*net) == family);
            let net = net.ok_or_else(|| format!("cidr: {:?} is no {family} prefix", cidr.as_str()))?.trunc();
            let operator = match operator {
                BgpFilterMatchOperator::Equal => PrefixOperator::Equal,
                BgpFilterMatchOperator::NotEqual => PrefixOperator::NotEqual,
                BgpFilterMatchOperator::In => PrefixOperator::In,
                BgpFilterMatchOperator::NotIn => PrefixOperator::NotIn,
            };
            let lengths = prefix_length.as_ref().map(|BgpFilterPrefixLength { min, max }| {
                let bound = |bound: &Option<i32>, other: u8| bound.map_or(other, |bits| bits.clamp(0, 255) as u8);
                (bound(min, 0).max(net.prefix_len()), bound(max, family.bits()).min(family.bits()))
            });
            Some(PrefixMatch { net, operator, lengths })
        }
    };
    let community = match communities {
        None => None,
        Some(BgpFilterCommunityMatch { values }) => match values.as_slice() {
            [one] => Some(community("communities.values[0]", one)?),
            _ => return Err(format!("communities.values: {} values, expected exactly one", values.len())),
        },
    };
    Ok(FilterRule {
        prefix,
        learned: source.is_some(),
        interface: (!interface.is_empty()).then(|| interface.as_str().into()),
        internal: peer_type.map(|kind| kind == BgpFilterPeerType::Ibgp),
        community,
        as_path_prefix: as_path_prefix.clone(),
        priority: priority.map(|value| self::priority("priority", value)).transpose()?,
        accept: *action == BgpFilterAction::Accept,
        operations: operations.iter().enumerate().map(|(at, one)| operation(at, one)).collect::<Result<_, _>>()?,
    })
}

fn operation(at: usize, operation: &BgpFilterOperation) -> Result<FilterOperation, String> {
    let BgpFilterOperation { add_community, prepend_as_path, set_priority } = operation;
    match (add_community, prepend_as_path, set_priority) {
        (Some(BgpFilterAddCommunity { value }), None, None) => {
            let value = value.as_deref().unwrap_or_default();
            Ok(FilterOperation::AddCommunity(community(&format!("operations[{at}].addCommunity.value"), value)?))
        }
        (None, Some(BgpFilterPrependAsPath { prefix }), None) => Ok(FilterOperation::PrependAsPath(prefix.clone())),
        (None, None, Some(BgpFilterSetPriority { value })) => {
            let field = format!("operations[{at}].setPriority.value");
            Ok(FilterOperation::SetPriority(priority(&field, value.unwrap_or_default())?))
        }
        _ => Err(format!("operations[{at}]: expected exactly one of addCommunity, prependASPath and setPriority")),
    }
}

fn community(field: &str, text: &str) -> Result<Community, String> {
    Community::parse(text).ok_or_else(|| format!("{field}: {text:?} is no community AA:NN or AA:NN:MM"))
}

fn priority(field: &str, value: i64) -> Result<u32, String> {
    let number = u32::try_from(value).ok().filter(|value| (1..=2_147_483_646).contains(value));
    number.ok_or_else(|| format!("{field}: {value} is not from 1 to 2147483646"))
}
