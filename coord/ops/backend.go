package ops

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"weft/coord/console"
	"weft/coord/store"
	"weft/overlay/cert"
)

// backend is what the console sees of the service. A user sees that user's
// own devices and keys, and nothing says whether others exist.
type backend struct{ s *Service }

// NewBackend makes the console's of s.
func NewBackend(s *Service) console.Backend { return &backend{s} }

// consoleError says the store's errors in the console's words.
func consoleError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNotFound):
		return fmt.Errorf("%w: %w", console.ErrNotFound, err)
	case errors.Is(err, ErrTaken):
		return fmt.Errorf("%w: %w", console.ErrConflict, err)
	case errors.Is(err, ErrInvalid):
		return fmt.Errorf("%w: %w", console.ErrInvalid, err)
	case errors.Is(err, ErrTooOften):
		return &console.Problem{Kind: console.ErrInvalid, Text: err.Error()}
	case errors.Is(err, store.ErrDiskFull):
		return fmt.Errorf("%w: %w", console.ErrDiskFull, err)
	}
	return err
}

func (b *backend) read(ctx context.Context, f func(*store.Reader) error) error {
	return consoleError(b.s.store.Read(ctx, f))
}

func (b *backend) write(ctx context.Context, f func(*store.Tx) error) error {
	return consoleError(b.s.store.Write(ctx, f))
}

func (b *backend) Network(context.Context) console.Network {
	n := b.s.index.info()
	_, all := b.s.index.counts("")
	return console.Network{ID: n.ID.String(), Suffix: b.s.suffix, ServerURLs: n.URLs, Version: b.s.software, Devices: all}
}

func userOf(u store.User) console.User { return console.User{ID: u.ID, Name: u.Name, Owner: u.Owner} }

func (b *backend) Link(ctx context.Context, link console.Hash) (console.User, error) {
	var u store.User
	err := b.read(ctx, func(r *store.Reader) (err error) { u, err = r.Link(b.s.network, link, b.s.now()); return err })
	return userOf(u), err
}

func (b *backend) UseLink(ctx context.Context, link console.Hash, passwordHash string) (console.User, error) {
	var u store.User
	err := b.write(ctx, func(tx *store.Tx) (err error) {
		if u, err = tx.UseLink(b.s.network, link, b.s.now()); err != nil {
			return err
		}
		return tx.SetPassword(b.s.network, u.ID, passwordHash, [32]byte{})
	})
	return userOf(u), err
}

func (b *backend) Login(ctx context.Context, name string) (console.User, string, error) {
	var u store.User
	err := b.read(ctx, func(r *store.Reader) (err error) { u, err = r.UserByName(b.s.network, name); return err })
	return userOf(u), u.Password, err
}

func (b *backend) SetPassword(ctx context.Context, userID, passwordHash string, keep console.Hash) error {
	return b.write(ctx, func(tx *store.Tx) error { return tx.SetPassword(b.s.network, userID, passwordHash, keep) })
}

func (b *backend) CreateSession(ctx context.Context, s console.Session) error {
	row := store.Session{Hash: s.ID, UserID: s.UserID, Created: s.Created, Seen: s.Seen, Agent: printable(s.Agent, 200)}
	if s.Addr.IsValid() {
		row.Addr = s.Addr.String()
	}
	return b.write(ctx, func(tx *store.Tx) error { return tx.CreateSession(b.s.network, row) })
}

func sessionOf(s store.Session) console.Session {
	addr, _ := netip.ParseAddr(s.Addr) // "" is none
	return console.Session{ID: s.Hash, UserID: s.UserID, Created: s.Created, Seen: s.Seen, Agent: s.Agent, Addr: addr}
}

func (b *backend) Session(ctx context.Context, id console.Hash) (console.Session, console.User, error) {
	var s store.Session
	var u store.User
	err := b.read(ctx, func(r *store.Reader) (err error) { s, u, err = r.Session(b.s.network, id); return err })
	return sessionOf(s), userOf(u), err
}

func (b *backend) TouchSession(ctx context.Context, id console.Hash, seen time.Time) error {
	return b.write(ctx, func(tx *store.Tx) error { return tx.TouchSession(b.s.network, id, seen) })
}

func (b *backend) Sessions(ctx context.Context, userID string) ([]console.Session, error) {
	var list []console.Session
	err := b.read(ctx, func(r *store.Reader) error {
		rows, err := r.Sessions(b.s.network, userID)
		for _, s := range rows {
			list = append(list, sessionOf(s))
		}
		return err
	})
	return list, err
}

func (b *backend) DeleteSession(ctx context.Context, userID string, id console.Hash) error {
	return b.write(ctx, func(tx *store.Tx) error { return tx.DeleteSession(b.s.network, userID, id) })
}

func (b *backend) DeleteOtherSessions(ctx context.Context, userID string, keep console.Hash) error {
	return b.write(ctx, func(tx *store.Tx) error { return tx.DeleteSessions(b.s.network, userID, keep) })
}

func (b *backend) deviceOf(n store.Node) console.Device {
	st := b.s.stateOf(n.ID, n.Seen)
	d := console.Device{
		ID: n.ID.String(), Name: n.Name, FQDN: n.Name + "." + b.s.suffix, IPv4: n.IPv4, IPv6: store.IPv6Of(b.s.ipv6, n.IPv4),
		User: n.User, Tags: n.Tags, Online: st.Online, LastSeen: st.Since, Joined: n.Created, Expires: n.Expires,
		Hostname: n.Hostname, OS: n.OS, Software: n.Software, KeyID: n.KeyID, Ephemeral: n.Ephemeral,
	}
	d.Unknown = b.s.unsure(n.ID)
	d.Wildcard, d.LANNames = n.Wildcard, n.LANNames.String()
	d.Unaware = !b.s.index.knowsURLs(n.ID)
	if n.Expires.Sub(b.s.now()) < nodeLife/3 { // else nobody asks, and reading it takes a while
		if c, err := cert.ParseNode(b.s.network, n.Certificate); err == nil {
			d.Issued = c.NotBefore
		}
	}
	for _, a := range b.s.aliasInfos(n.ID) {
		d.Aliases = append(d.Aliases, console.DNSAlias{Name: a.Name, Until: a.Until})
	}
	if st.Online {
		d.Relay = b.s.relayLabel(st.Relay)
	}
	if st.Addr.IsValid() {
		d.Addr = st.Addr.Unmap().String()
	}
	return d
}

func (b *backend) Devices(ctx context.Context, userID string, q console.DeviceQuery) (console.DeviceList, error) {
	q.Offset, q.Limit = max(q.Offset, 0), min(max(q.Limit, 1), 200)
	l, err := b.s.Devices(ctx, b.actor(ctx, userID), DeviceQuery{Text: q.Text, State: q.State, KeyID: q.KeyID, Offset: q.Offset, Limit: q.Limit})
	list := console.DeviceList{Total: l.Total, All: l.All, Online: l.Online, Unaware: l.Unaware, URLs: b.s.index.info().URLs}
	rev := b.s.Revocations()
	list.Revocations, list.NotListed = rev.Bytes*100/rev.Max, rev.Left
	for _, d := range l.Devices {
		list.Devices = append(list.Devices, b.deviceOf(d.Node))
	}
	return list, consoleError(err)
}

func (b *backend) Device(ctx context.Context, userID, id string) (console.Device, error) {
	n, err := b.device(ctx, userID, id)
	if err != nil {
		return console.Device{}, err
	}
	b.s.look(ctx, []cert.NodeID{n.ID})
	return b.deviceOf(n), nil
}

func (b *backend) device(ctx context.Context, userID, id string) (n store.Node, err error) {
	nodeID, err := parseID(id)
	if err != nil {
		return n, err
	}
	err = b.read(ctx, func(r *store.Reader) (err error) { n, err = r.Node(b.s.network, nodeID); return err })
	if err == nil {
		err = opDeviceRead.authorize(b.actor(ctx, userID), deviceTarget(n))
	}
	return n, consoleError(err)
}

func parseID(id string) (cert.NodeID, error) {
	nodeID, err := cert.ParseNodeID(id)
	if err != nil {
		return nodeID, console.ErrNotFound
	}
	return nodeID, nil
}

func (b *backend) RenameDevice(ctx context.Context, userID, id, name string) (console.Device, error) {
	nodeID, err := parseID(id)
	if err != nil {
		return console.Device{}, err
	}
	n, err := Do(ctx, b.s, b.actor(ctx, userID), RenameDevice{nodeID, name})
	if errors.Is(err, ErrTaken) && !strings.HasPrefix(err.Error(), "name ") {
		return console.Device{}, dnsProblem(err) // not a device's: it says whose it is
	}
	if err != nil {
		return console.Device{}, consoleError(err)
	}
	return b.deviceOf(n), nil
}

func (b *backend) DeviceNamed(ctx context.Context, userID, name string) (console.Device, error) {
	n, err := b.s.findToChange(ctx, name)
	if err == nil {
		err = opDeviceRead.authorize(b.actor(ctx, userID), deviceTarget(n))
	}
	if err != nil {
		return console.Device{}, consoleError(err)
	}
	return b.deviceOf(n), nil
}

func (b *backend) ReplaceDevice(ctx context.Context, userID, id, old string) (console.Device, error) {
	nodeID, err := parseID(id)
	if err != nil {
		return console.Device{}, err
	}
	oldID, err := parseID(old)
	if err != nil {
		return console.Device{}, err
	}
	n, err := Do(ctx, b.s, b.actor(ctx, userID), ReplaceDevice{Old: oldID, By: nodeID})
	if err != nil {
		return console.Device{}, consoleError(err)
	}
	return b.deviceOf(n), nil
}

func (b *backend) DeleteDevice(ctx context.Context, userID, id string) error {
	nodeID, err := parseID(id)
	if err != nil {
		return err
	}
	_, err = Do(ctx, b.s, b.actor(ctx, userID), DeleteDevice{nodeID})
	return consoleError(err)
}

func (b *backend) TestConnection(ctx context.Context, userID, id string) (console.ConnectionTest, error) {
	n, err := b.device(ctx, userID, id)
	if err != nil {
		return console.ConnectionTest{}, err
	}
	st, _ := b.s.presence.Get(n.ID)
	if !st.Online {
		return console.ConnectionTest{}, fmt.Errorf("%s: %w", n.Name, console.ErrOffline)
	}
	if st.Relay != b.s.auth.RelayID() {
		return console.ConnectionTest{}, fmt.Errorf("%s: %w: %s", n.Name, console.ErrElsewhere, b.s.relayLabel(st.Relay))
	}
	rtt, err := b.s.relay.get().Ping(ctx, b.s.network, n.ID)
	if err != nil {
		return console.ConnectionTest{}, fmt.Errorf("%s: %w: %w", n.Name, console.ErrOffline, err)
	}
	return console.ConnectionTest{Path: "relay", Relay: relayName, Latency: rtt}, nil
}

// actor is the user in the console.
func (b *backend) actor(ctx context.Context, userID string) Actor {
	var u store.User
	b.s.store.Read(ctx, func(r *store.Reader) (err error) { u, err = r.User(b.s.network, userID); return err })
	a := Actor{UserID: u.ID, User: u.Name, Role: RoleMember, Via: ViaConsole}
	if u.Owner {
		a.Role = RoleOwner
	}
	return a
}

func orZero(t *time.Time) (z time.Time) {
	if t != nil {
		return *t
	}
	return z
}

func keyOf(k store.Key) console.Key {
	return console.Key{
		ID: k.ID, Note: k.Note, Reusable: k.Reusable, Ephemeral: k.Ephemeral, Tags: k.Tags,
		Created: k.Created, Expires: k.Expires, Revoked: orZero(k.Revoked), Used: k.Uses, LastUsed: orZero(k.Used), User: k.User,
	}
}

func (b *backend) Keys(ctx context.Context, userID string, limit int) ([]console.Key, error) {
	rows, err := b.s.Keys(ctx, b.actor(ctx, userID), limit)
	list := make([]console.Key, 0, len(rows))
	for _, k := range rows {
		list = append(list, keyOf(k))
	}
	return list, consoleError(err)
}

func (b *backend) Key(ctx context.Context, userID, id string) (console.Key, error) {
	k, err := b.s.Key(ctx, b.actor(ctx, userID), id)
	return keyOf(k), consoleError(err)
}

func (b *backend) CreateKey(ctx context.Context, userID string, nk console.NewKey) (console.Key, string, error) {
	k, err := Do(ctx, b.s, b.actor(ctx, userID), CreateKey{
		UserID: userID, Note: nk.Note, Tags: nk.Tags, Reusable: nk.Reusable, Ephemeral: nk.Ephemeral, Life: nk.Life,
	})
	if err != nil {
		return console.Key{}, "", consoleError(err)
	}
	key, err := b.Key(ctx, userID, k.ID)
	return key, k.Token, err
}

func (b *backend) RevokeKey(ctx context.Context, userID, id string) error {
	_, err := Do(ctx, b.s, b.actor(ctx, userID), RevokeKey{id})
	return consoleError(err)
}

func (b *backend) Subscribe(userID string) (<-chan console.Event, func()) {
	in, cancel := b.s.Subscribe(b.actor(context.Background(), userID))
	out := make(chan console.Event, 64)
	go func() {
		defer close(out)
		for e := range in {
			ev := console.Event{Kind: console.EventKind(e.Kind), Device: console.Device{ID: e.Device.ID.String(), Name: e.Device.Name}}
			if e.Kind != EventDeleted {
				ev.Device = b.deviceOf(e.Device.Node)
			}
			select {
			case out <- ev:
			default:
				cancel()
			}
		}
	}()
	return out, cancel
}
