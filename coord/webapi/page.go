package webapi

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"weft/coord/ops"
)

// maxRecords is the largest number of audit records in one answer.
const maxRecords = 1000

// Asked has the query parameters of all lists; each operation takes some of them (see
// addAsked). A cursor is the field next of the previous page, and has no other meaning
// for programs.
type Asked struct {
	Cursor  string    `query:"cursor" maxLength:"200" doc:"the field next of the previous page; none for the first page"`
	Limit   int       `query:"limit" minimum:"1" maximum:"5000" default:"100" doc:"at most this many entries; for audit records at most 1000"`
	Filter  string    `query:"filter" maxLength:"1000" doc:"only devices that fit all terms: is:online (offline, attention, expired, pending, unaware, ephemeral), tag:T, owner:NAME, os:linux, version:<1.2, seen:>7d, relay:NAME, or a word of what a list shows; a minus before a term negates it, commas separate several values, quotes enclose spaces"`
	Sort    string    `query:"sort" maxLength:"20" doc:"name, status, tags, address, relay, version, owner, system or seen; a minus before it reverses the order"`
	Text    string    `query:"text" doc:"only devices that have each word in the name, an address, a tag, the owner, the system, the version or the relay; words are taken literally, not as filter terms"`
	State   string    `query:"state" enum:"online,offline"`
	Key     string    `query:"key" doc:"only devices that joined with the key of this id"`
	Name    string    `query:"name" doc:"a name, short or in full, or an address"`
	Type    string    `query:"type" maxLength:"20" doc:"type of record, such as A or MX; A and AAAA if not given"`
	From    string    `query:"from" doc:"the device that asks, by name, address or id; for the policy also a person. If not given: for all that is reached, the user of the token; for a preview, a device that sees all devices"`
	To      string    `query:"to" maxLength:"300" doc:"the destination: DEVICE:PORT, DEVICE:PORT/udp or DEVICE/icmp; to list who reaches a device, only DEVICE"`
	Since   time.Time `query:"since" doc:"only what was done at this time or later"`
	Until   time.Time `query:"until" doc:"only what was done before this time"`
	Op      string    `query:"op" maxLength:"32" doc:"only operations with this name, or whose name begins with it: device."`
	User    string    `query:"user" doc:"only actions of this user, or tokens of this user: name or id"`
	Target  string    `query:"target" doc:"only actions on this device, key, relay or user: name or id"`
	Refused bool      `query:"refused" doc:"only what was refused; a page may then be short or empty although a next one follows"`
	Via     string    `query:"via" enum:"console,api,cli,node,system" doc:"only what came through this interface; a page may then be short or empty although a next one follows"`
	Oldest  bool      `query:"oldest" doc:"the earliest first"`
	Device  string    `query:"device" doc:"only what this device reports: name, address or id"`
	Head    string    `query:"head" maxLength:"1000" doc:"a head that was saved elsewhere, to compare with"`
}

// order is how a list is sorted.
type order int

const (
	newestFirst order = iota // then by id
	oldestFirst              // then by id
	byName
)

// page returns one page of a list. The list is in the order o of mark, which returns
// the sort key of an entry. The cursor is the sort key of the last entry of the
// previous page, which may have been deleted since.
func page[T any](list []T, in *Asked, o order, mark func(T) (int64, string)) (part []T, next string, err error) {
	after := func(T) bool { return true }
	if in.Cursor != "" {
		head, word, ok := strings.Cut(in.Cursor, ".")
		at, err := strconv.ParseInt(head, 10, 64)
		if !ok || err != nil {
			return nil, "", ops.Invalid("cursor: want next of the previous page")
		}
		after = func(t T) bool {
			n, w := mark(t)
			switch o {
			case newestFirst:
				return cmp.Or(cmp.Compare(at, n), cmp.Compare(w, word)) > 0
			case oldestFirst:
				return cmp.Or(cmp.Compare(n, at), cmp.Compare(w, word)) > 0
			}
			return w > word
		}
	}
	start := len(list)
	for i, t := range list {
		if after(t) {
			start = i
			break
		}
	}
	part = append([]T{}, list[start:min(len(list), start+in.Limit)]...)
	if end := start + len(part); end < len(list) {
		n, w := mark(list[end-1])
		next = fmt.Sprintf("%d.%s", n, w)
	}
	return part, next, nil
}

// Precondition is the header If-Match (RFC 9110).
type Precondition struct {
	IfMatch string `header:"If-Match" maxLength:"1000" doc:"the ETag that you read; the change is made only if it is still the present one"`
}

// revisions returns the revisions that the header accepts, nil for any.
func (p Precondition) revisions() ([]string, error) {
	if s := strings.TrimSpace(p.IfMatch); s == "" || s == "*" { // a thing that does not exist gives ErrNotFound anyway
		return nil, nil
	}
	out := []string{}
	for tag := range strings.SplitSeq(p.IfMatch, ",") {
		v, ok := strings.CutPrefix(strings.TrimSpace(tag), `"`)
		v, end := strings.CutSuffix(v, `"`)
		if !ok || !end {
			if strings.HasPrefix(strings.TrimSpace(tag), "W/") {
				continue // a weak ETag never matches
			}
			return nil, ops.Invalid(`If-Match: want the ETag that you read, such as "12"`)
		}
		out = append(out, v)
	}
	return out, nil
}

func quoted(revision string) string { return `"` + revision + `"` }
