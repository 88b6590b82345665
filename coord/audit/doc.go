// Package audit defines audit records, the chain that shows whether a record was changed or
// removed, and the formats in which records are exported. It is pure: no database, no
// clock, no keys of its own.
//
// # Records
//
// Each mutation, sign-in, refusal and use of a token is one Record. Its encoding
// (version 1, integers big endian) is
//
//	version 1 B  seq 8 B  at 8 B (unix milliseconds)  count 4 B
//	ten texts, each: length 1 B, UTF-8
//	    user, user id, role, via, from, op, kind, id, name, refused
//	before, after, each: length 2 B (0 for none), JSON
//
// Every length has a fixed width and nothing is optional, so a record has one
// encoding and an encoding stands for one record: Decode accepts only encodings that
// Encode makes.
//
// # Chain
//
// The hash of a record is SHA-256(hash of the record before ‖ encoding). The
// first one follows Genesis, which is bound to the network, so that no record of
// another network fits in.
//
// # What is signed
//
// A Head says which record is the last, and a Checkpoint up to which one records
// were removed because they were old. Both are signed with the network CA's key,
// by ECDSA over SHA-256 of
//
//	"weft audit head v1\x00" or "weft audit checkpoint v1\x00"
//	network id 16 B  seq 8 B  hash 32 B  at 8 B (unix milliseconds)
//
// The same key signs certificates and revocation lists. Those are DER and begin with the
// byte 0x30, while the texts signed here begin with "weft audit": so a signature for one
// purpose is never valid for another, and that of a head is not valid for a checkpoint.
//
// # What it is good for
//
// Somebody who can write to the database but does not have the CA's key cannot change a
// record without Verify finding it. Somebody who has the key too can make a new chain and
// sign it: only a head that was saved elsewhere shows that, so save one there from time to
// time. A head from before a checkpoint cannot be compared with the records any more; only
// its signature can be checked. So save a new head after records were removed.
package audit
