//! Settings as they are read from stored resources.

use tortie_api::{Kind, Resource};
use tortie_facts::{Key, Value};
use tortie_ipam::{Settings, check_config, default_config};

fn fact(kind: Kind, name: &str, spec: &str) -> (Key, Value) {
    let json = format!(
        r#"{{"apiVersion":"projectcalico.org/v3","kind":"{}","metadata":{{"name":"{name}"}},"spec":{spec}}}"#,
        kind.name()
    );
    (Key::resource(kind, "", name), Value::resource(Resource::from_json(&json).expect("good")))
}

#[test]
fn pools_and_reservations_are_picked_out_with_their_defaults() {
    let facts = [
        fact(Kind::IpPool, "b", r#"{"cidr":"10.0.0.0/16","disabled":true}"#),
        fact(Kind::IpPool, "a", r#"{"cidr":"fd00::/48","assignmentMode":"Manual","allowedUses":["LoadBalancer"]}"#),
        fact(Kind::IpPool, "c", r#"{"cidr":"10.0.128.0/17","blockSize":28}"#),
        fact(Kind::IpReservation, "r", r#"{"reservedCIDRs":["10.0.0.1","10.0.0.8/29"]}"#),
    ];
    let settings = Settings::from_facts(facts.iter().map(|(key, value)| (key, value)));
    let told: Vec<_> = settings.pools.iter().map(|p| (p.name.as_str(), p.block_size, p.manual)).collect();
    assert_eq!(told, [("a", 122, true), ("b", 26, false), ("c", 28, false)]);
    assert_eq!(settings.pools[1].closed.as_deref(), Some("it is disabled"));
    assert_eq!(settings.pools[1].uses.len(), 2);
    assert!(settings.reserved.contains("10.0.0.15".parse().expect("a literal")));
    assert_eq!(settings.config, default_config());
    let addr = "10.0.200.1".parse().expect("a literal");
    assert_eq!(settings.pool_of(addr).map(|pool| pool.name.as_str()), Some("c"), "the longer prefix");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let mut config = default_config();
    assert_eq!(check_config(&config), Ok(()));
    config.max_blocks_per_host = 3;
    assert!(check_config(&config).is_err_and(|reason| reason.contains("strictAffinity: true")));
    config.strict_affinity = true;
    assert_eq!(check_config(&config), Ok(()));
    config.ip_cooldown_seconds = 1201;
    assert!(check_config(&config).is_err());
    let none = tortie_api::ipam::IpamConfig::default();
    assert!(check_config(&none).is_err_and(|reason| reason.contains("autoAllocateBlocks: true")));
}
