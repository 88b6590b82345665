package webapi

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"weft/coord/ops"
)

// maxRecords is how many audit records an answer has at most.
const maxRecords = 1000

// Asked are the parameters of all lists and questions; which of them an operation has
// is said where it is entered. A cursor is what the part before said is next, and means
// nothing else to programs.
type Asked struct {
	Cursor  string    `query:"cursor" maxLength:"200" doc:"next of the page before; none for the first one"`
	Limit   int       `query:"limit" minimum:"1" maximum:"5000" default:"100" doc:"how many at most; of audit records at most 1000"`
	Text    string    `query:"text" doc:"only those where every word is part of the name, an address, a tag or the system"`
	State   string    `query:"state" enum:"online,offline"`
	Key     string    `query:"key" doc:"only those that joined with this key: its id"`
	Name    string    `query:"name" doc:"a name, short or in full, or an address"`
	Type    string    `query:"type" maxLength:"20" doc:"of a record: A, MX; A and AAAA if not given"`
	From    string    `query:"from" doc:"who asks: a device, by name, address or id, or, about the policy, a person; a name without it is asked where all devices are seen"`
	To      string    `query:"to" maxLength:"300" doc:"what is to be reached: DEVICE:PORT, DEVICE:PORT/udp or DEVICE/icmp"`
	Since   time.Time `query:"since" doc:"only what was done at or after"`
	Until   time.Time `query:"until" doc:"only what was done before"`
	Op      string    `query:"op" maxLength:"32" doc:"only what is called so, or begins so: device."`
	User    string    `query:"user" doc:"only what is, or was done by, this user: name or id"`
	Target  string    `query:"target" doc:"only what was done to it: name or id"`
	Refused bool      `query:"refused" doc:"only what was refused: a page may then be short or empty, and have a next one"`
	Oldest  bool      `query:"oldest" doc:"the earliest first"`
	Device  string    `query:"device" doc:"only what this device says: name, address or id"`
	Head    string    `query:"head" maxLength:"1000" doc:"a head that was kept elsewhere, to compare with"`
}

// order is how a list is sorted.
type order int

const (
	newestFirst order = iota // then by id
	oldestFirst              // then by id
	byName
)

// page takes a page of a list that is in an order of mark, which says by what a thing
// stands where it does. The cursor says where the last thing of the page before stood,
// so that it may be gone by now.
func page[T any](list []T, in *Asked, o order, mark func(T) (int64, string)) (part []T, next string, err error) {
	after := func(T) bool { return true }
	if in.Cursor != "" {
		head, word, ok := strings.Cut(in.Cursor, ".")
		at, err := strconv.ParseInt(head, 10, 64)
		if !ok || err != nil {
			return nil, "", ops.Invalid("cursor: want the next of the previous page")
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
	IfMatch string `header:"If-Match" maxLength:"1000" doc:"the ETag that was read: the change is made only if it is still that one"`
}

// revisions are those that will do, nil for any.
func (p Precondition) revisions() ([]string, error) {
	if s := strings.TrimSpace(p.IfMatch); s == "" || s == "*" { // what there is not was not found before
		return nil, nil
	}
	out := []string{}
	for tag := range strings.SplitSeq(p.IfMatch, ",") {
		v, ok := strings.CutPrefix(strings.TrimSpace(tag), `"`)
		v, end := strings.CutSuffix(v, `"`)
		if !ok || !end {
			if strings.HasPrefix(strings.TrimSpace(tag), "W/") {
				continue // a weak one never fits
			}
			return nil, ops.Invalid(`If-Match: want the ETag that was read, such as "12"`)
		}
		out = append(out, v)
	}
	return out, nil
}

func quoted(revision string) string { return `"` + revision + `"` }
