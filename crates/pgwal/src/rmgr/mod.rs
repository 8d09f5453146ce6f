//! Resource managers: one file each, and the list of them all. C: access/rmgrlist.h.

mod list;
mod rules;
#[cfg(test)]
pub(crate) mod testing;

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use crate::error::Result;
use crate::format::{MAGICS, Majors, WalFormat};
use crate::record::{Info, Plain, Record, RecordHeader};
use crate::text::Text;
pub(crate) use rules::Rules;

/// Id of a resource manager. JSON: its name. C: `RmgrId`, access/rmgr.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RmgrId(pub u8);

/// A resource manager that the server has built in.
#[derive(Debug)]
pub struct Rmgr {
    /// Its id.
    pub id: RmgrId,
    /// Its name, as pg_waldump shows it and `--rmgr` takes it.
    pub name: &'static str,
    /// Its record types.
    pub opcodes: &'static [Opcode],
}

/// A record type: its bits in the info byte, its name, and the majors that have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opcode {
    /// The resource manager's bits of `xl_info`.
    pub info: u8,
    /// Name, as pg_waldump shows it.
    pub name: &'static str,
    /// Majors in which these bits have this meaning.
    pub majors: Majors,
}

/// A row of a resource manager's opcode table.
pub const fn op(info: u8, name: &'static str, majors: Majors) -> Opcode {
    Opcode { info, name, majors }
}

/// Text of a payload, byte for byte as the major that wrote it describes it. C: `rm_desc`.
pub trait Describe {
    /// Appends the description; `rec` is the record that the payload was read from.
    fn describe(&self, rec: &Record<'_>, fmt: WalFormat, out: &mut Text);
}

/// Yes or no, as most descriptions show it.
const fn letter(yes: bool) -> &'static str {
    if yes { "T" } else { "F" }
}

/// Main data and block data of a record that is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Main data.
    pub main: Vec<u8>,
    /// Data by block reference, in the order of first use.
    pub blocks: Vec<(u8, Vec<u8>)>,
}

impl Body {
    /// The data of block reference `id`, to append to.
    pub fn block(&mut self, id: u8) -> &mut Vec<u8> {
        let at = self.blocks.iter().position(|block| block.0 == id).unwrap_or_else(|| {
            self.blocks.push((id, Vec::new()));
            self.blocks.len() - 1
        });
        &mut self.blocks[at].1 // found or just pushed
    }
}

macro_rules! rmgrs {
    ($($id:literal $name:literal $module:ident $variant:ident($op:ty);)*) => {
        $(pub mod $module;)*

        /// The built-in resource managers, in the order of their ids.
        pub const RMGRS: &[Rmgr] = &[$(Rmgr { id: RmgrId($id), name: $name, opcodes: $module::OPCODES }),*];

        /// A decoded payload: main data and block data, as the resource manager means them.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum Payload<'r> {
            $(#[doc = concat!("Of resource manager ", $name, ".")] $variant($op)),*
        }

        /// Decodes the payload of `rec`. `None`: a custom resource manager, or an opcode that this version does not define.
        ///
        /// # Errors
        /// The payload does not parse.
        #[inline]
        pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Payload<'r>>> {
            Ok(match rec.rmid().0 {
                $($id => $module::parse(rec, fmt)?.map(Payload::$variant),)*
                _ => None,
            })
        }

        /// Parses the payload of `rec` and drops it: whether it is what its opcode promises. Nothing to say about a custom
        /// resource manager, or an opcode that this version does not define.
        ///
        /// # Errors
        /// The payload does not parse.
        #[inline]
        pub fn check(rec: &Record<'_>, fmt: WalFormat) -> Result<()> {
            match rec.rmid().0 {
                $($id => { $module::parse(rec, fmt)?; })*
                _ => {}
            }
            Ok(())
        }

        /// Appends the description of `rec`: what [`parse`] and [`Describe`] do, without the payload in between.
        ///
        /// # Errors
        /// The payload does not parse.
        #[inline]
        pub fn describe(rec: &Record<'_>, fmt: WalFormat, out: &mut Text) -> Result<()> {
            match rec.rmid().0 {
                $($id => if let Some(op) = $module::parse(rec, fmt)? {
                    op.describe(rec, fmt, out);
                },)*
                // Whatever the record is, this is all that the server's own tool knows of a custom one.
                custom @ 128.. => put!(out, "rmid: ", custom),
                _ => {}
            }
            Ok(())
        }

        /// Serializes the payload of `rec`: what [`parse`] and [`Serialize`] do, without the payload in between. `None`: as [`parse`].
        ///
        /// # Errors
        /// The payload does not parse.
        #[inline]
        pub fn serialize<S: Serializer>(
            rec: &Record<'_>,
            fmt: WalFormat,
            serializer: S,
        ) -> Result<Option<std::result::Result<S::Ok, S::Error>>> {
            Ok(match rec.rmid().0 {
                $($id => $module::parse(rec, fmt)?.map(|op| op.serialize(serializer)),)*
                _ => None,
            })
        }

        impl Payload<'_> {
            /// Writes main data and block data: the inverse of [`parse`].
            pub fn write(&self, fmt: WalFormat, body: &mut Body) {
                match self {
                    $(Payload::$variant(op) => op.write(fmt, body)),*
                }
            }
        }

        impl Describe for Payload<'_> {
            #[inline]
            fn describe(&self, rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
                match self {
                    $(Payload::$variant(op) => op.describe(rec, fmt, out)),*
                }
            }
        }
    };
}

rmgrs! {
    0 "XLOG" xlog Xlog(xlog::Op<'r>);
    1 "Transaction" xact Transaction(xact::Op<'r>);
    2 "Storage" smgr Storage(smgr::Op);
    3 "CLOG" clog Clog(clog::Op);
    4 "Database" dbase Database(dbase::Op<'r>);
    5 "Tablespace" tblspc Tablespace(tblspc::Op<'r>);
    6 "MultiXact" multixact MultiXact(multixact::Op<'r>);
    7 "RelMap" relmap RelMap(relmap::Op<'r>);
    8 "Standby" standby Standby(standby::Op<'r>);
    9 "Heap2" heap2 Heap2(heap2::Op<'r>);
    10 "Heap" heap Heap(heap::Op<'r>);
    11 "Btree" btree Btree(btree::Op<'r>);
    12 "Hash" hash Hash(hash::Op<'r>);
    13 "Gin" gin Gin(gin::Op<'r>);
    14 "Gist" gist Gist(gist::Op<'r>);
    15 "Sequence" seq Sequence(seq::Op);
    16 "SPGist" spgist SpGist(spgist::Op<'r>);
    17 "BRIN" brin Brin(brin::Op<'r>);
    18 "CommitTs" commit_ts CommitTs(commit_ts::Op<'r>);
    19 "ReplicationOrigin" replorigin ReplicationOrigin(replorigin::Op);
    20 "Generic" generic Generic(generic::Op<'r>);
    21 "LogicalMessage" logicalmsg LogicalMessage(logicalmsg::Op<'r>);
}

impl RmgrId {
    /// C: `RM_XLOG_ID`.
    pub const XLOG: RmgrId = RmgrId(0);
    /// C: `RM_XACT_ID`.
    pub const XACT: RmgrId = RmgrId(1);
    /// C: `RM_STANDBY_ID`.
    pub const STANDBY: RmgrId = RmgrId(8);
    /// C: `RM_HEAP2_ID`.
    pub const HEAP2: RmgrId = RmgrId(9);
    /// C: `RM_HEAP_ID`.
    pub const HEAP: RmgrId = RmgrId(10);
    /// C: `RM_BTREE_ID`.
    pub const BTREE: RmgrId = RmgrId(11);
    /// C: `RM_COMMIT_TS_ID`.
    pub const COMMIT_TS: RmgrId = RmgrId(18);
    /// C: `RM_REPLORIGIN_ID`.
    pub const REPLORIGIN: RmgrId = RmgrId(19);
    /// C: `RM_LOGICALMSG_ID`.
    pub const LOGICALMSG: RmgrId = RmgrId(21);
    /// C: `RM_GENERIC_ID`.
    pub const GENERIC: RmgrId = RmgrId(20);

    /// The built-in resource manager with this id.
    #[inline]
    pub fn builtin(self) -> Option<&'static Rmgr> {
        RMGRS.get(usize::from(self.0))
    }

    /// Whether the id is in the range that extensions take theirs from, 128 to 255. C: `RmgrIdIsCustom`.
    #[inline]
    pub const fn is_custom(self) -> bool {
        self.0 >= 128
    }

    /// Its name: `Heap`, `custom128`, or `UNKNOWN (100)`.
    pub fn name(self) -> Cow<'static, str> {
        match self.builtin() {
            Some(rmgr) => Cow::Borrowed(rmgr.name),
            None if self.is_custom() => Cow::Owned(format!("custom{:03}", self.0)),
            None => Cow::Owned(format!("UNKNOWN ({})", self.0)),
        }
    }
}

impl Serialize for RmgrId {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

/// Whether a plain record is of one of the most usual types and surely parses. `false` says nothing: [`parse`] does.
///
/// What the resource managers look at here is what decides in their `parse`, and a test holds the two against each other.
pub(crate) fn is_right(header: &RecordHeader, plain: &Plain<'_>, fmt: WalFormat) -> bool {
    let of_type = || match header.rmid {
        RmgrId::HEAP2 => heap2::is_right(header.info, plain, fmt),
        RmgrId::BTREE => btree::is_right(header.info, plain, fmt),
        _ => false,
    };
    !plain.has_other_data && (Rules::of(fmt).allow(header, plain.main.len(), plain.data.len(), plain.last) || of_type())
}

/// Name of the record type that `info` means to `rmid`. C: `rm_identify`.
#[inline]
pub fn identify(rmid: RmgrId, info: Info, fmt: WalFormat) -> Option<&'static str> {
    let bits = match rmid {
        // The topmost bit says that the commit or abort has optional parts; it does not change the name.
        RmgrId::XACT => info.0 & xact::OPMASK,
        // These two compare the whole byte, the WAL's own bits included.
        RmgrId::COMMIT_TS | RmgrId::REPLORIGIN => info.0,
        // One kind of record, whatever the bits.
        RmgrId::GENERIC => 0,
        _ => info.opcode(),
    };
    if bits & Info::MASK != 0 {
        return None;
    }
    let names = NAMES.get(usize::from(fmt.major).wrapping_sub(FIRST_MAJOR))?.get(usize::from(rmid.0))?;
    *names.get(usize::from(bits >> 4))?
}

const FIRST_MAJOR: usize = 10;
/// The opcode rows spread out by major, resource manager and bits: every record asks for its name.
static NAMES: [[[Option<&str>; 16]; RMGRS.len()]; MAGICS.len()] = {
    let mut names = [[[None; 16]; RMGRS.len()]; MAGICS.len()];
    let mut major = 0;
    while major < names.len() {
        let mut id = 0;
        while id < RMGRS.len() {
            let mut row = 0;
            while row < RMGRS[id].opcodes.len() {
                let opcode = RMGRS[id].opcodes[row];
                if opcode.majors.contains((FIRST_MAJOR + major) as u8) {
                    names[major][id][opcode.info as usize >> 4] = Some(opcode.name);
                }
                row += 1;
            }
            id += 1;
        }
        major += 1;
    }
    names
};
