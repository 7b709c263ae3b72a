//! OIDs of the built-in types that planning and decoding know (`pg_type.dat`): the same on every server.

/// The first OID of what people and extensions make; below it are PostgreSQL's own objects (`FirstNormalObjectId`,
/// transam.h).
pub(crate) const FIRST_NORMAL: u32 = 16_384;

pub(crate) const BOOL: u32 = 16;
pub(crate) const BYTEA: u32 = 17;
pub(crate) const CHAR: u32 = 18;
pub(crate) const NAME: u32 = 19;
pub(crate) const INT8: u32 = 20;
pub(crate) const INT2: u32 = 21;
pub(crate) const INT4: u32 = 23;
pub(crate) const TEXT: u32 = 25;
pub(crate) const OID: u32 = 26;
pub(crate) const TID: u32 = 27;
pub(crate) const XID: u32 = 28;
pub(crate) const CID: u32 = 29;
pub(crate) const JSON: u32 = 114;
pub(crate) const XML: u32 = 142;
pub(crate) const POINT: u32 = 600;
pub(crate) const LSEG: u32 = 601;
pub(crate) const PATH: u32 = 602;
pub(crate) const BOX: u32 = 603;
pub(crate) const POLYGON: u32 = 604;
pub(crate) const LINE: u32 = 628;
pub(crate) const CIDR: u32 = 650;
pub(crate) const FLOAT4: u32 = 700;
pub(crate) const FLOAT8: u32 = 701;
pub(crate) const UNKNOWN: u32 = 705;
pub(crate) const CIRCLE: u32 = 718;
pub(crate) const MACADDR8: u32 = 774;
pub(crate) const MONEY: u32 = 790;
pub(crate) const MACADDR: u32 = 829;
pub(crate) const INET: u32 = 869;
pub(crate) const BPCHAR: u32 = 1042;
pub(crate) const VARCHAR: u32 = 1043;
pub(crate) const DATE: u32 = 1082;
pub(crate) const TIME: u32 = 1083;
pub(crate) const TIMESTAMP: u32 = 1114;
pub(crate) const TIMESTAMPTZ: u32 = 1184;
pub(crate) const INTERVAL: u32 = 1186;
pub(crate) const TIMETZ: u32 = 1266;
pub(crate) const BIT: u32 = 1560;
pub(crate) const VARBIT: u32 = 1562;
pub(crate) const NUMERIC: u32 = 1700;
pub(crate) const RECORD: u32 = 2249;
pub(crate) const RECORD_ARRAY: u32 = 2287;
pub(crate) const UUID: u32 = 2950;
pub(crate) const PG_LSN: u32 = 3220;
pub(crate) const JSONB: u32 = 3802;
pub(crate) const JSONPATH: u32 = 4072;
pub(crate) const XID8: u32 = 5069;

/// `regproc`, `regprocedure`, `regoper`, `regoperator`, `regclass`, `regtype`, `regconfig`, `regdictionary`,
/// `regnamespace`, `regrole` and `regcollation`: OIDs that print as names, which need not be unique.
pub(crate) const PRINTED_AS_NAMES: [u32; 11] = [24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191];
