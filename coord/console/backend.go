package console

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/netip"
	"net/url"
	"time"
)

// Backend is what the console needs from the coordination server: storage and
// the live network. The split of work is this.
//
//   - The console makes every secret of its own (session tokens, passwords'
//     argon2id hashes), checks passwords, limits the rate of sign-ins and says
//     which session is still good. The Backend never sees a password, a session
//     token or a link token, only their hashes.
//   - The Backend stores, in one transaction per call, and makes join keys. A
//     call that returned nil has been committed.
//
// All methods are called from many goroutines. Strings in Device that a device
// made up (Hostname, OS, Software) may hold anything; the console treats every
// string as hostile. Times are UTC; the zero time means "never" or "unknown".
//
// Errors: a method wraps one of the Err values below where the caller can act
// on it; every other error is logged and shown as "something went wrong".
type Backend interface {
	// Network describes the network. It is called for most pages: no I/O.
	Network(ctx context.Context) Network

	// Link returns the user that a one-time sign-in link is for, without
	// using it up. Unknown, used and expired links are ErrNotFound.
	Link(ctx context.Context, link Hash) (User, error)
	// UseLink uses the link up, stores passwordHash for its user, deletes
	// all of that user's sessions and other links. Of many parallel calls with
	// one link exactly one succeeds, the others get ErrNotFound.
	UseLink(ctx context.Context, link Hash, passwordHash string) (User, error)

	// Login returns the user with this name (no case in ASCII, or exact) and
	// its password hash, "" when none is set yet. Unknown names are
	// ErrNotFound, in about the same time.
	Login(ctx context.Context, name string) (User, string, error)
	// SetPassword replaces the hash of user, deletes all of the user's
	// sessions except keep, and all of its unused links.
	SetPassword(ctx context.Context, userID, passwordHash string, keep Hash) error

	// CreateSession stores s. Above 100 sessions of a user the least recently
	// seen one may be deleted.
	CreateSession(ctx context.Context, s Session) error
	// Session returns a stored session and its user: ErrNotFound when it was
	// deleted or its user is gone. The console checks the times itself. It is
	// called for every request: an indexed read, no write.
	Session(ctx context.Context, id Hash) (Session, User, error)
	// TouchSession sets Session.Seen. The console calls it at most once a
	// minute per session; it need not be durable.
	TouchSession(ctx context.Context, id Hash, seen time.Time) error
	// Sessions lists the sessions of a user, most recently seen first.
	Sessions(ctx context.Context, userID string) ([]Session, error)
	// DeleteSession deletes one session if it is this user's, else ErrNotFound.
	DeleteSession(ctx context.Context, userID string, id Hash) error
	// DeleteOtherSessions deletes all sessions of the user except keep.
	DeleteOtherSessions(ctx context.Context, userID string, keep Hash) error

	// Devices returns one page of the devices that the user may see, sorted
	// by name.
	Devices(ctx context.Context, userID string, q DeviceQuery) (DeviceList, error)
	// Device returns one device: ErrNotFound when it does not exist or the
	// user may not see it.
	Device(ctx context.Context, userID, id string) (Device, error)
	// RenameDevice gives the device a new name: ErrInvalid when it is no DNS
	// label, ErrConflict when another device has it, *Problem when it was renamed
	// too often.
	RenameDevice(ctx context.Context, userID, id, name string) (Device, error)
	// DeviceNamed returns the device that has this name now; a former name is
	// ErrNotFound.
	DeviceNamed(ctx context.Context, userID, name string) (Device, error)
	// ReplaceDevice deletes the device old and gives its name to the device id:
	// ErrInvalid when they are the same, *Problem when id was renamed too often.
	ReplaceDevice(ctx context.Context, userID, id, old string) (Device, error)
	// DeleteDevice deletes the device and revokes its certificates.
	DeleteDevice(ctx context.Context, userID, id string) error
	// TestConnection measures the round trip between the server's relay and
	// the device over the device's relay connection: ErrOffline when it has
	// none or does not answer. ctx carries the deadline.
	TestConnection(ctx context.Context, userID, id string) (ConnectionTest, error)

	// SetDeviceDNS sets whether the device answers for every name below its
	// own, and whether short names of its LAN come first ("default", "on",
	// "off").
	SetDeviceDNS(ctx context.Context, userID, id string, wildcard bool, lanNames string) error

	// DNS returns what is set about names: for the network's owner, ErrNotFound
	// for others, as the other two.
	DNS(ctx context.Context, userID string) (DNS, error)
	// EditDNS makes one change, or returns a *Problem.
	EditDNS(ctx context.Context, userID string, e DNSEdit) error
	// PreviewName says what a name will answer on a device ("" for one that
	// sees all), and asks no other resolver. *Problem for what is no question.
	PreviewName(ctx context.Context, userID, from, name, recordType string) (NamePreview, error)

	// Keys lists the join keys of the user, at most limit: those that can be used,
	// then the others, newest first.
	Keys(ctx context.Context, userID string, limit int) ([]Key, error)
	// Key returns one: ErrNotFound when unknown.
	Key(ctx context.Context, userID, id string) (Key, error)
	// CreateKey makes a join key and returns it with its token (starts with
	// "weft1"), which is not stored. ErrInvalid for bad tags or times.
	CreateKey(ctx context.Context, userID string, k NewKey) (Key, string, error)
	// RevokeKey makes the key useless. Devices that joined with it stay.
	// Revoking twice is no error.
	RevokeKey(ctx context.Context, userID, id string) error

	// Subscribe reports every change of a device that the user may see,
	// in order, until cancel is called. The channel is buffered (64 or more)
	// and the sender never blocks: a reader that lags too far behind gets
	// its channel closed, and reads the state anew. The console holds at most
	// MaxStreams subscriptions.
	Subscribe(userID string) (events <-chan Event, cancel func())
}

// MaxStreams bounds the live streams (open pages) of all users together.
const MaxStreams = 256

// The errors that a Backend wraps.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("already taken")
	ErrInvalid  = errors.New("invalid")
	ErrOffline  = errors.New("offline")
	// ErrDiskFull is of a change for which there was no room.
	ErrDiskFull = errors.New("the disk is full")
	// ErrElsewhere is of a device at a relay that the server cannot ask.
	ErrElsewhere = errors.New("connected to another relay")
)

// Hash is the SHA-256 of a secret with at least 128 bits of entropy (a session
// token, the token of a sign-in link): what is stored in the secret's place.
type Hash [sha256.Size]byte

// HashToken returns the hash under which token is stored.
func HashToken(token string) Hash { return sha256.Sum256([]byte(token)) }

// NewToken returns 256 random bits as 43 URL-safe characters.
func NewToken() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// LinkPath is the path and query of the one-time sign-in link with this token
// (from NewToken; store its HashToken). Append it to the console's address.
func LinkPath(token string) string { return "/welcome?link=" + url.QueryEscape(token) }

// LinkLife is how long a one-time sign-in link should be good.
const LinkLife = 24 * time.Hour

// User is somebody who signs in.
type User struct {
	ID   string // stable, opaque
	Name string // as typed at sign-in, and the owner in "weft:user:NAME"
	// Owner may decide about the whole network.
	Owner bool
}

// Session is one signed-in browser.
type Session struct {
	ID      Hash // of the token in the cookie
	UserID  string
	Created time.Time
	Seen    time.Time // last request, to the minute
	Agent   string    // User-Agent, at most 200 bytes, hostile
	Addr    netip.Addr
}

// Network is what the pages say about the network.
type Network struct {
	ID         string   // NetworkID, hex
	Suffix     string   // "weft.internal"
	ServerURLs []string // https://HOST:PORT
	Version    string   // of weft-server
	Devices    int      // in all; 0 gives the empty state
}

// Device is one node.
type Device struct {
	ID       string // NodeID, hex
	Name     string // unique DNS label
	FQDN     string // Name and suffix
	IPv4     netip.Addr
	IPv6     netip.Addr
	User     string   // owner's name, "" for none
	Tags     []string // without "tag:"
	Online   bool
	Unknown  bool      // not online, as far as the server knows yet: it, or a relay, has just started
	LastSeen time.Time // while not online when it was last online, else when it was last heard; zero: unknown
	Joined   time.Time
	Expires  time.Time // end of the current certificate
	Issued   time.Time // its beginning, zero while the end is far
	Relay    string    // name of its home relay, "" when unknown
	Addr     string    // public address as its relay sees it, "" when unknown

	Hostname string // as the device reported it
	OS       string // "linux/arm64"
	Software string // weft's version

	KeyID     string // the key it joined with, "" when unknown
	Ephemeral bool

	Aliases  []DNSAlias // former names that still lead to it
	Wildcard bool       // it answers for every name below its own
	LANNames string     // "default", "on", "off"

	Unaware bool // it has not been told all addresses that the server has now
}

// DeviceQuery selects devices. The zero value selects all of the first page.
type DeviceQuery struct {
	Text   string // every space-separated word is part of the name, an address, a tag or the OS; no case; at most 100 bytes
	State  string // "", "online" or "offline"
	KeyID  string // joined with this key
	Offset int
	Limit  int // 1 to 200
}

// DeviceList is one page.
type DeviceList struct {
	Devices []Device
	Total   int // matching Text, State and KeyID
	Online  int // online among all devices of the user
	All     int // all devices of the user
	Unaware int // of those, Unaware

	Revocations int // how full the revocation list is, in percent
	NotListed   int // revoked certificates that found no room in it

	URLs []string // the server's addresses
}

// ConnectionTest is one measured round trip.
type ConnectionTest struct {
	Path    string // "relay": between the relay and the device
	Relay   string // the relay's name
	Latency time.Duration
}

// Key is a join key; its token was shown once.
type Key struct {
	ID        string
	Note      string // for people, at most 100 bytes
	Reusable  bool
	Ephemeral bool
	Tags      []string // without "tag:"; none makes a node of the user ("laptop")
	Created   time.Time
	Expires   time.Time
	Revoked   time.Time
	Used      int       // devices that joined with it
	LastUsed  time.Time // zero: never
	User      string    // name of the user that made it
}

// NewKey asks for a join key.
type NewKey struct {
	Note      string
	Reusable  bool
	Ephemeral bool
	Tags      []string      // without "tag:"
	Life      time.Duration // 1 minute to 1 year
}

// EventKind says what happened to a device.
type EventKind string

// The kinds of Event.
const (
	EventJoined  EventKind = "joined"
	EventOnline  EventKind = "online"
	EventOffline EventKind = "offline"
	EventRenamed EventKind = "renamed"
	EventDeleted EventKind = "deleted"
)

// Event is one change. Device is the state after it; for EventDeleted only ID
// and Name are set.
type Event struct {
	Kind   EventKind
	Device Device
}
