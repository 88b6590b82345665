package webhook

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"weft/coord/audit"
)

// Schema names the body of a request. Fields are added, never changed.
const Schema = "event/1"

// The events that are not operations: a device went online or offline.
const (
	PresenceOnline  = "presence.online"
	PresenceOffline = "presence.offline"
)

// refusedPrefix begins the event names of refused operations, so that a webhook for
// device.* does not take them for operations that were done.
const refusedPrefix = "refused."

// Event is the body of a request. Empty fields are present.
type Event struct {
	Schema  string          `json:"schema"`
	ID      string          `json:"id"` // unique, and the same each time the event is sent
	At      string          `json:"at"` // RFC 3339, with milliseconds
	Network string          `json:"network"`
	Op      string          `json:"op"`
	Actor   Actor           `json:"actor"`
	Target  Target          `json:"target"`
	Before  json.RawMessage `json:"before"`
	After   json.RawMessage `json:"after"`
	Refused string          `json:"refused"` // why the operation was refused, "" if it was done
	Count   uint32          `json:"count"`   // how many equal refusals the event stands for; 1 for other events
}

// Actor is who did the operation.
type Actor struct {
	User   string `json:"user"`
	UserID string `json:"user_id"`
	Role   string `json:"role"`
	Via    string `json:"via"`
	From   string `json:"from"` // remote address
}

// Target is what the operation was done to.
type Target struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	Name string `json:"name"`
}

const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// OfRecord returns the event for an audit record. Its id contains the hash of the record: after
// a restore new records may get the numbers of lost ones, but events never get the same id.
func OfRecord(network string, r audit.Record, h audit.Hash) Event {
	e := Event{
		Schema: Schema, ID: fmt.Sprintf("a%d-%s", r.Seq, hex.EncodeToString(h[:8])), At: r.At.UTC().Format(timeFormat), Network: network, Op: r.Op,
		Actor:  Actor{r.User, r.UserID, r.Role, r.Via, r.From},
		Target: Target{r.Kind, r.ID, r.Name}, Before: r.Before, After: r.After, Refused: r.Refused, Count: r.Count,
	}
	if r.Refused != "" {
		e.Op = refusedPrefix + r.Op
	}
	return e
}

// OfPresence returns the event of a device that went online or offline.
func OfPresence(network, id string, at time.Time, device Target, online bool) Event {
	state := func(on bool) json.RawMessage { return json.RawMessage(fmt.Sprintf(`{"online":%t}`, on)) }
	e := Event{
		Schema: Schema, ID: id, At: at.UTC().Format(timeFormat), Network: network, Op: PresenceOffline,
		Actor: Actor{User: "server", Via: audit.System}, Target: device, Before: state(!online), After: state(online), Count: 1,
	}
	if online {
		e.Op = PresenceOnline
	}
	return e
}

// OfTest returns an event that an actor sends to a webhook to see whether it arrives.
func OfTest(network, op, id string, at time.Time, by Actor, hook Target) Event {
	return Event{Schema: Schema, ID: id, At: at.UTC().Format(timeFormat), Network: network, Op: op, Actor: by, Target: hook, Count: 1}
}

// Body returns the body of the request: JSON without a line feed at its end.
func (e Event) Body() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, fmt.Errorf("event %s: %w", e.ID, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// NameOf returns the event name of an operation: its own name, with "refused." in front
// if it was refused.
func NameOf(op string, refused bool) string {
	if refused {
		return refusedPrefix + op
	}
	return op
}

// Matches reports whether one of the patterns matches an event name. A pattern is a
// name, a prefix with .* such as device.*, or * for all.
func Matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if begin, ok := strings.CutSuffix(p, "*"); ok {
			return strings.HasPrefix(name, begin)
		}
		return p == name
	})
}

// CheckPattern returns an error for a pattern that matches no event. ops are the names of the
// operations that leave audit records.
func CheckPattern(p string, ops []string) error {
	names := []string{PresenceOnline, PresenceOffline}
	for _, o := range ops {
		names = append(names, o, NameOf(o, true))
	}
	begin, star := strings.CutSuffix(p, "*")
	if (!star || begin == "" || strings.HasSuffix(begin, ".")) && slices.ContainsFunc(names, func(n string) bool { return Matches([]string{p}, n) }) {
		return nil
	}
	kinds := []string{"presence"}
	for _, o := range ops {
		kind, _, _ := strings.Cut(o, ".")
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	return fmt.Errorf("this matches no event; want *, a kind with .* (%s, refused), or a name such as device.rename or presence.offline", strings.Join(slices.Compact(kinds), ", "))
}
