// Package audit says what an audit record is, how records hang together so that
// none can be changed or taken away unseen, and how they are handed to other
// programs. It is pure: no database, no clock, no keys of its own.
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
// encoding and an encoding is of one record: Decode takes what Encode makes and
// nothing else.
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
// The same key signs certificates and revocation lists. What is signed there is
// DER and begins with the byte 0x30, what is signed here begins with "weft audit":
// so a signature made here is never one of a certificate or a list, nor the other
// way round, nor that of a head one of a checkpoint.
//
// # What it is good for
//
// A head of before a checkpoint can be compared with nothing any more: it is then
// known to be the network's, no more, so keep a new one after records were removed.
//
// Who can write to the database but does not have the CA's key can change
// nothing that Verify does not find. Who has the key as well can make a new chain
// and sign it: that is found only with a head that was kept somewhere else, so
// keep one there from time to time.
package audit
