package store

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// How Go values are stored in columns.

// fromUnix is the inverse of time.Time.Unix for a stored time.
func fromUnix(sec int64) time.Time { return time.Unix(sec, 0).UTC() }

// orNull stores the zero time as NULL.
func orNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.Unix()
}

// nullTime scans a time that may be NULL; NULL is the zero time.
type nullTime struct{ t *time.Time }

func (n nullTime) Scan(v any) error {
	if sec, ok := v.(int64); ok {
		*n.t = fromUnix(sec)
	} else {
		*n.t = time.Time{}
	}
	return nil
}

// stored scans a time that is never NULL.
type stored struct{ t *time.Time }

func (s stored) Scan(v any) error { return nullTime(s).Scan(v) }

// JoinTags is the stored form of tags: sorted, without duplicates.
func JoinTags(tags []string) string {
	t := slices.Clone(tags)
	slices.Sort(t)
	return strings.Join(slices.Compact(t), ",")
}

// SplitTags is the inverse of JoinTags.
func SplitTags(s string) []string {
	if s == "" {
		return []string{}
	}
	return strings.Split(s, ",")
}

// Class combines all attributes of a node that policy depends on: its owner and its tags.
// Nodes of one class see the same nodes and are seen by the same.
func Class(userID, tags string) string { return userID + "/" + tags }

// ClassOf is the inverse of Class. User ids contain no slash.
func ClassOf(class string) (userID string, tags []string) {
	userID, t, _ := strings.Cut(class, "/")
	return userID, SplitTags(t)
}

func toUint32(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func fromUint32(v uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, v)))
}

// maybeTime scans a time that may be NULL; NULL is nil.
type maybeTime struct{ t **time.Time }

func (n maybeTime) Scan(v any) error {
	*n.t = nil
	if sec, ok := v.(int64); ok {
		t := fromUnix(sec)
		*n.t = &t
	}
	return nil
}
