//! Numbers of the kernel's nf_tables interface (`linux/netfilter/nf_tables.h`), as far as they are used here.
//!
//! Attribute numbers are per kind of object; the module names say which.

/// Message types, below the subsystem's number in the upper byte.
pub(crate) mod msg {
    const SUBSYSTEM: u16 = 10 << 8;
    pub(crate) const BATCH_BEGIN: u16 = 0x10;
    pub(crate) const BATCH_END: u16 = 0x11;
    pub(crate) const NEW_TABLE: u16 = SUBSYSTEM;
    pub(crate) const GET_TABLE: u16 = SUBSYSTEM | 1;
    pub(crate) const DEL_TABLE: u16 = SUBSYSTEM | 2;
    pub(crate) const NEW_CHAIN: u16 = SUBSYSTEM | 3;
    pub(crate) const GET_CHAIN: u16 = SUBSYSTEM | 4;
    pub(crate) const DEL_CHAIN: u16 = SUBSYSTEM | 5;
    pub(crate) const NEW_RULE: u16 = SUBSYSTEM | 6;
    pub(crate) const GET_RULE: u16 = SUBSYSTEM | 7;
    pub(crate) const DEL_RULE: u16 = SUBSYSTEM | 8;
    pub(crate) const NEW_SET: u16 = SUBSYSTEM | 9;
    pub(crate) const GET_SET: u16 = SUBSYSTEM | 10;
    pub(crate) const DEL_SET: u16 = SUBSYSTEM | 11;
    pub(crate) const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
    pub(crate) const GET_ELEMENTS: u16 = SUBSYSTEM | 13;
    pub(crate) const DEL_ELEMENTS: u16 = SUBSYSTEM | 14;
    pub(crate) const NEW_GENERATION: u16 = SUBSYSTEM | 15;
    pub(crate) const GET_GENERATION: u16 = SUBSYSTEM | 16;
    /// The resource that batches name.
    pub(crate) const RESOURCE: u16 = 10;
    /// The multicast group that hears of every change.
    pub(crate) const GROUP: u32 = 7;
}

/// `NFPROTO_INET`: a table for both families.
pub(crate) const INET: u8 = 1;
pub(crate) const NFPROTO_IPV4: u8 = 2;
pub(crate) const NFPROTO_IPV6: u8 = 10;

pub(crate) mod table {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const FLAGS: u16 = 2;
    pub(crate) const OWNER: u16 = 7;
    pub(crate) const FLAG_DORMANT: u32 = 1;
    pub(crate) const FLAG_OWNER: u32 = 2;
    pub(crate) const FLAG_PERSIST: u32 = 4;
}

pub(crate) mod chain {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 3;
    pub(crate) const HOOK: u16 = 4;
    pub(crate) const POLICY: u16 = 5;
    pub(crate) const TYPE: u16 = 7;
    pub(crate) const HOOK_NUM: u16 = 1;
    pub(crate) const HOOK_PRIORITY: u16 = 2;
}

pub(crate) mod rule {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const CHAIN: u16 = 2;
    pub(crate) const HANDLE: u16 = 3;
    pub(crate) const EXPRESSIONS: u16 = 4;
    pub(crate) const POSITION: u16 = 6;
}

pub(crate) mod set {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const KEY_TYPE: u16 = 4;
    pub(crate) const KEY_LEN: u16 = 5;
    pub(crate) const DATA_TYPE: u16 = 6;
    pub(crate) const ID: u16 = 10;
    pub(crate) const USERDATA: u16 = 13;
    pub(crate) const FLAG_INTERVAL: u32 = 4;
    pub(crate) const FLAG_MAP: u32 = 8;
    pub(crate) const DATA_VERDICT: u32 = 0xffff_ff00;
}

pub(crate) mod elements {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const SET: u16 = 2;
    pub(crate) const LIST: u16 = 3;
    pub(crate) const ITEM: u16 = 1;
    pub(crate) const KEY: u16 = 1;
    pub(crate) const DATA: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const FLAG_INTERVAL_END: u32 = 1;
}

pub(crate) mod generation {
    pub(crate) const ID: u16 = 1;
    pub(crate) const PROCESS_ID: u16 = 2;
    pub(crate) const PROCESS_NAME: u16 = 3;
}

pub(crate) mod data {
    pub(crate) const VALUE: u16 = 1;
    pub(crate) const VERDICT: u16 = 2;
    pub(crate) const VERDICT_CODE: u16 = 1;
    pub(crate) const VERDICT_CHAIN: u16 = 2;
    pub(crate) const DROP: i32 = 0;
    pub(crate) const ACCEPT: i32 = 1;
    pub(crate) const JUMP: i32 = -3;
    pub(crate) const GOTO: i32 = -4;
    pub(crate) const RETURN: i32 = -5;
}

/// Attributes and values inside expressions.
pub(crate) mod expr {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const DATA: u16 = 2;
    pub(crate) const ITEM: u16 = 1;

    pub(crate) const META_DREG: u16 = 1;
    pub(crate) const META_KEY: u16 = 2;
    pub(crate) const META_SREG: u16 = 3;
    pub(crate) const META_MARK: u32 = 3;
    pub(crate) const META_IIFNAME: u32 = 6;
    pub(crate) const META_OIFNAME: u32 = 7;
    pub(crate) const META_NFPROTO: u32 = 15;
    pub(crate) const META_L4PROTO: u32 = 16;

    pub(crate) const CT_DREG: u16 = 1;
    pub(crate) const CT_KEY: u16 = 2;
    pub(crate) const CT_STATE: u32 = 0;
    pub(crate) const CT_STATUS: u32 = 2;
    pub(crate) const CT_MARK: u32 = 3;
    /// `IPS_DST_NAT`.
    pub(crate) const CT_TRANSLATED: u32 = 1 << 5;
    pub(crate) const CT_BIT_INVALID: u32 = 1;
    pub(crate) const CT_BIT_ESTABLISHED: u32 = 2;
    pub(crate) const CT_BIT_RELATED: u32 = 4;

    pub(crate) const CMP_SREG: u16 = 1;
    pub(crate) const CMP_OP: u16 = 2;
    pub(crate) const CMP_DATA: u16 = 3;
    pub(crate) const OP_EQUAL: u32 = 0;
    pub(crate) const OP_NOT_EQUAL: u32 = 1;

    pub(crate) const RANGE_SREG: u16 = 1;
    pub(crate) const RANGE_OP: u16 = 2;
    pub(crate) const RANGE_FROM: u16 = 3;
    pub(crate) const RANGE_TO: u16 = 4;

    pub(crate) const BITWISE_SREG: u16 = 1;
    pub(crate) const BITWISE_DREG: u16 = 2;
    pub(crate) const BITWISE_LEN: u16 = 3;
    pub(crate) const BITWISE_MASK: u16 = 4;
    pub(crate) const BITWISE_XOR: u16 = 5;
    pub(crate) const BITWISE_OP: u16 = 6;

    pub(crate) const PAYLOAD_DREG: u16 = 1;
    pub(crate) const PAYLOAD_BASE: u16 = 2;
    pub(crate) const PAYLOAD_OFFSET: u16 = 3;
    pub(crate) const PAYLOAD_LEN: u16 = 4;
    pub(crate) const PAYLOAD_SREG: u16 = 5;
    pub(crate) const PAYLOAD_CSUM_TYPE: u16 = 6;
    pub(crate) const PAYLOAD_CSUM_OFFSET: u16 = 7;
    pub(crate) const PAYLOAD_CSUM_FLAGS: u16 = 8;
    /// `NFT_PAYLOAD_CSUM_INET`: the checksum of an IPv4 header.
    pub(crate) const CSUM_INET: u32 = 1;
    pub(crate) const BASE_NETWORK: u32 = 1;
    pub(crate) const BASE_TRANSPORT: u32 = 2;

    pub(crate) const LOOKUP_SET: u16 = 1;
    pub(crate) const LOOKUP_SREG: u16 = 2;
    pub(crate) const LOOKUP_DREG: u16 = 3;
    pub(crate) const LOOKUP_FLAGS: u16 = 5;

    pub(crate) const IMMEDIATE_DREG: u16 = 1;
    pub(crate) const IMMEDIATE_DATA: u16 = 2;

    pub(crate) const LOG_GROUP: u16 = 1;
    pub(crate) const LOG_PREFIX: u16 = 2;
    pub(crate) const LOG_SNAPLEN: u16 = 3;
    pub(crate) const LOG_LEVEL: u16 = 5;
    /// `LOG_NOTICE`, as upstream's rules.
    pub(crate) const LEVEL_NOTICE: u32 = 5;

    pub(crate) const COUNTER_BYTES: u16 = 1;
    pub(crate) const COUNTER_PACKETS: u16 = 2;

    pub(crate) const REJECT_TYPE: u16 = 1;
    pub(crate) const REJECT_CODE: u16 = 2;
    pub(crate) const REJECT_TCP_RESET: u32 = 1;
    pub(crate) const REJECT_ICMPX: u32 = 2;
    pub(crate) const ICMPX_PORT_UNREACHABLE: u8 = 1;

    pub(crate) const LIMIT_RATE: u16 = 1;
    pub(crate) const LIMIT_UNIT: u16 = 2;
    pub(crate) const LIMIT_BURST: u16 = 3;
    pub(crate) const LIMIT_TYPE: u16 = 4;
    pub(crate) const LIMIT_FLAGS: u16 = 5;
    /// Filling that some kernels put into what they dump.
    pub(crate) const LIMIT_PAD: u16 = 6;
    pub(crate) const LIMIT_INVERTED: u32 = 1;

    pub(crate) const FIB_DREG: u16 = 1;
    pub(crate) const FIB_RESULT: u16 = 2;
    pub(crate) const FIB_FLAGS: u16 = 3;
    /// `NFT_FIB_RESULT_ADDRTYPE`.
    pub(crate) const FIB_TYPE: u32 = 3;
    /// `NFTA_FIB_F_SADDR`.
    pub(crate) const FIB_SOURCE: u32 = 1;
    /// `NFTA_FIB_F_OIF`.
    pub(crate) const FIB_OIF: u32 = 16;
    /// `RTN_LOCAL`.
    pub(crate) const TYPE_LOCAL: u32 = 2;

    pub(crate) const CONNLIMIT_COUNT: u16 = 1;
    pub(crate) const CONNLIMIT_FLAGS: u16 = 2;
    pub(crate) const CONNLIMIT_INVERTED: u32 = 1;

    pub(crate) const NAT_TYPE: u16 = 1;
    pub(crate) const NAT_FAMILY: u16 = 2;
    pub(crate) const NAT_ADDR_MIN: u16 = 3;
    pub(crate) const NAT_ADDR_MAX: u16 = 4;
    pub(crate) const NAT_PROTO_MIN: u16 = 5;
    pub(crate) const NAT_PROTO_MAX: u16 = 6;
    pub(crate) const NAT_FLAGS: u16 = 7;
    pub(crate) const NAT_SOURCE: u32 = 0;
    pub(crate) const NAT_DESTINATION: u32 = 1;
    /// `NF_NAT_RANGE_MAP_IPS`.
    pub(crate) const RANGE_ADDRESS: u32 = 1;
    /// `NF_NAT_RANGE_PROTO_SPECIFIED`.
    pub(crate) const RANGE_PORTS: u32 = 2;

    pub(crate) const MASQ_FLAGS: u16 = 1;
    pub(crate) const MASQ_PROTO_MIN: u16 = 2;
    pub(crate) const MASQ_PROTO_MAX: u16 = 3;
    /// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`: new ports at random, so that parallel flows rarely collide.
    pub(crate) const RANDOM_FULLY: u32 = 16;
}
