package store

import (
	"crypto/sha256"
	"database/sql"
	"encoding"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"weft/coord/audit"
	"weft/overlay/api/wiretest"
	"weft/overlay/cert"
)

// The fixtures are databases of servers of their time: scripts/record made
// schema-N.sql, and schema-N.json says what is in it.
var update = flag.Bool("update", false, "write down what new fixtures hold")

// recordedAt is later than everything in the fixtures, and before anything in
// them has ended.
var recordedAt = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)

// meaning is everything that the program reads in a database.
func meaning(t *testing.T, s *Store) []byte {
	t.Helper()
	var m struct {
		Network   Network
		Users     []User
		Keys      []Key
		Nodes     []Node
		Brief     int
		Relays    []Relay
		Revoked   []string
		Removed   []cert.NodeID
		Settings  string
		Records   []DNSRecord
		Aliases   []Alias
		Wildcards []Wildcard
		Policies  []PolicyRevision `json:",omitempty"`
		Webhooks  []Webhook        `json:",omitempty"`
		Tokens    []Token          `json:",omitempty"`
		Audit     []audit.Record   `json:",omitempty"`
		AuditHead *audit.Head      `json:",omitempty"`
	}
	err := s.Read(t.Context(), func(r *Reader) (err error) {
		if m.Network, err = r.Network(); err != nil {
			return err
		}
		id := m.Network.ID
		if m.Users, err = r.Users(id); err != nil {
			return err
		}
		if m.Keys, err = r.Keys(id, "", 0, time.Time{}); err != nil {
			return err
		}
		err = r.EachNode(id, "", func(n Node) error {
			// That it is the same is enough.
			for _, b := range []*[]byte{&n.SPKI, &n.Certificate} {
				sum := sha256.Sum256(*b)
				*b = sum[:8]
			}
			m.Nodes = append(m.Nodes, n)
			if _, err := r.NodeByName(id, n.Name); err != nil {
				return err
			}
			removed, err := r.RemovedSince(id, n.Class, 0)
			m.Removed = append(m.Removed, removed...)
			return err
		})
		if err != nil {
			return err
		}
		if err := r.EachBrief(id, func(Brief) error { m.Brief++; return nil }); err != nil {
			return err
		}
		if m.Relays, err = r.Relays(id); err != nil {
			return err
		}
		serials, err := r.Revoked(id, recordedAt)
		if err != nil {
			return err
		}
		for _, v := range serials {
			n := v.Serial
			m.Revoked = append(m.Revoked, n.String())
			if _, revoked, err := r.HolderOf(id, n); err != nil || !revoked {
				return fmt.Errorf("holder of %v: revoked %v, %w", n, revoked, err)
			}
		}
		if err := r.row(`SELECT dns FROM networks WHERE network_id=$1`, []any{id[:]}, &m.Settings); err != nil {
			return err
		}
		d, err := r.DNS(id)
		if err != nil {
			return err
		}
		if len(d.Records) > 0 {
			m.Records = d.Records
		}
		if m.Aliases, err = r.Aliases(id, nil); err != nil {
			return err
		}
		if m.Wildcards, err = r.Wildcards(id); err != nil {
			return err
		}
		if m.Policies, err = r.Policies(id); err != nil {
			return err
		}
		if m.Webhooks, err = r.Webhooks(id); err != nil {
			return err
		}
		if m.Tokens, err = r.Tokens(id, ""); err != nil {
			return err
		}
		if h, err := r.AuditHead(id); err == nil {
			m.AuditHead = &h
		} else if !errors.Is(err, ErrNotFound) {
			return err
		}
		return r.EachAudit(id, AuditFilter{Oldest: true}, func(rec audit.Record, _ audit.Hash) error {
			m.Audit = append(m.Audit, rec)
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(fields(reflect.ValueOf(m)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fields is a value with its structs as maps by the names of their Go fields, as the
// fixtures have them, whatever the fields are called in JSON. A time that is
// not there is the zero time.
func fields(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case *time.Time:
		if x == nil {
			return time.Time{}
		}
		return *x
	case LANNames:
		return int(x)
	case encoding.TextMarshaler, json.RawMessage, []byte:
		return x
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return fields(v.Elem())
	case reflect.Struct:
		m := map[string]any{}
		for f, value := range v.Fields() {
			if f.Tag.Get("json") == ",omitempty" && value.IsZero() {
				continue
			}
			m[f.Name] = fields(value)
			if embedded, ok := m[f.Name].(map[string]any); ok && f.Anonymous {
				delete(m, f.Name)
				maps.Copy(m, embedded)
			}
			if f.Name == "Tags" && value.Len() == 0 {
				m[f.Name] = nil // as programs had it that wrote the fixtures
			}
		}
		return m
	case reflect.Slice:
		if v.IsNil() {
			return nil
		}
		fallthrough
	case reflect.Array:
		list := []any{}
		for i := range v.Len() {
			list = append(list, fields(v.Index(i)))
		}
		return list
	}
	return v.Interface()
}

// recorded makes a database file of a fixture.
func recorded(t *testing.T, schema int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("testdata/schema-%d.sql", schema))
	if err != nil {
		t.Fatalf("%v: make it with scripts/record, and describe it with `go test ./coord/store -update`", err)
	}
	path := filepath.Join(t.TempDir(), "weft.db")
	script(t, path, string(text))
	return path
}

func script(t *testing.T, path string, text string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(text); err != nil {
		t.Fatal(err)
	}
}

// The database of every schema that ever was is brought up to date with
// nothing lost, from wherever an earlier attempt was killed, and doing it again
// changes nothing.
func TestUpgrade(t *testing.T) {
	for schema := 1; schema <= schemaVersion(); schema++ {
		t.Run(fmt.Sprint(schema), func(t *testing.T) {
			golden := fmt.Sprintf("testdata/schema-%d.json", schema)
			for killed := schema; killed <= schemaVersion(); killed++ {
				path := recorded(t, schema)
				for i := schema; i < killed; i++ {
					files, _ := fs.Glob(migrations, "migrations/*.sql")
					text, _ := migrations.ReadFile(files[i])
					script(t, path, fmt.Sprintf("BEGIN; %s\nPRAGMA user_version = %d; COMMIT;", text, i+1))
				}
				saved := fmt.Sprintf("%s.schema-%d", path, killed)
				os.WriteFile(saved, []byte("half of one"), 0o600)
				var twice [2][]byte
				for i := range twice {
					s := open(t, path, Options{})
					wiretest.Golden(t, golden, meaning(t, s), *update)
					var bad []string
					s.Read(t.Context(), func(r *Reader) error {
						return errors.Join(
							r.each("PRAGMA foreign_key_check", nil, func(scan func(...any) error) error { bad = append(bad, "foreign key"); return nil }),
							r.each("PRAGMA integrity_check", nil, func(scan func(...any) error) error {
								var word string
								err := scan(&word)
								if word != "ok" {
									bad = append(bad, word)
								}
								return err
							}))
					})
					if bad != nil {
						t.Error(bad)
					}
					s.Close()
					twice[i], _ = os.ReadFile(saved)
				}
				if string(twice[0]) != string(twice[1]) {
					t.Error("the second start wrote the copy of the first anew")
				}
				if killed == schemaVersion() {
					continue // nothing to upgrade, so no copy
				}
				// The copy made before is the old database still.
				db, err := sql.Open("sqlite", saved)
				if err != nil {
					t.Fatal(err)
				}
				var version, nodes int
				err = errors.Join(db.QueryRow("PRAGMA user_version").Scan(&version), db.QueryRow("SELECT COUNT(*) FROM nodes").Scan(&nodes))
				db.Close()
				if err != nil || version != killed || nodes != 3 {
					t.Errorf("the copy: schema %d, %d devices, %v", version, nodes, err)
				}
				if killed == schema {
					restored := filepath.Join(t.TempDir(), "weft.db")
					os.WriteFile(restored, twice[0], 0o600)
					wiretest.Golden(t, golden, meaning(t, open(t, restored, Options{})), false)
				}
			}
		})
	}
}

// No time column of an upgraded database holds the zero time, whatever an
// older version wrote.
func TestUpgradedTimes(t *testing.T) {
	for schema := 1; schema <= schemaVersion(); schema++ {
		s := open(t, recorded(t, schema), Options{})
		err := s.Read(t.Context(), func(r *Reader) error {
			var columns [][2]string
			err := r.each(`SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type='table' AND (c.name LIKE '%\_at' ESCAPE '\' OR c.name = 'until')`, nil,
				func(scan func(...any) error) error {
					var c [2]string
					err := scan(&c[0], &c[1])
					columns = append(columns, c)
					return err
				})
			if err != nil || len(columns) < 15 {
				return fmt.Errorf("%d columns of times, %w", len(columns), err)
			}
			for _, c := range columns {
				var bad int
				if err := r.row(fmt.Sprintf(`SELECT COUNT(*) FROM %s WHERE typeof(%s) NOT IN ('integer', 'null') OR %s <= 0`, c[0], c[1], c[1]), nil, &bad); err != nil {
					return err
				}
				if bad > 0 {
					t.Errorf("schema %d: %s.%s: %d zero times", schema, c[0], c[1], bad)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// When somebody last signed in is known from the audit, or from the sessions; what was refused
// is no sign-in.
func TestUpgradedSignIns(t *testing.T) {
	path := recorded(t, 10)
	script(t, path, `INSERT INTO users (network_id, user_id, name, owner, created_at) SELECT network_id, who, who, 0, 1 FROM networks, (SELECT 'audited' who UNION SELECT 'refused' UNION SELECT 'here' UNION SELECT 'never');
		INSERT INTO sessions (token_hash, network_id, user_id, created_at, seen_at, agent, addr) SELECT randomblob(32), network_id, user_id, 500, 500, '', '' FROM users WHERE name IN ('audited', 'here')`)
	add := func(seq int, at int64, r audit.Record) {
		t.Helper()
		r.Seq, r.At, r.Op, r.Via, r.User, r.Kind, r.ID, r.Name, r.Count = uint64(seq), time.Unix(at, 0), "session.create", audit.Console, r.UserID, "user", r.UserID, r.UserID, 1
		b, err := r.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		script(t, path, fmt.Sprintf(`INSERT INTO audit SELECT network_id, %d, %d, '%s', '%s', '%[4]s', '%[4]s', '%[4]s', zeroblob(32), X'%x' FROM networks`, seq, at*1000, r.Op, r.UserID, b))
	}
	browser := []byte(`{"agent":"Firefox","since":"2026-11-01T00:00:00Z"}`)
	add(1001, 1000, audit.Record{UserID: "audited", After: browser})
	add(1002, 2000, audit.Record{UserID: "audited", After: browser})
	add(1003, 3000, audit.Record{UserID: "audited", Refused: "suspended"})
	add(1004, 3000, audit.Record{UserID: "refused", Refused: "suspended"})
	err := open(t, path, Options{}).Read(t.Context(), func(r *Reader) error {
		for name, want := range map[string]string{"audited": "2000", "here": "500", "refused": "-", "never": "-"} {
			var got string
			if err := r.row(`SELECT COALESCE(signed_in_at, '-') FROM users WHERE name=$1`, []any{name}, &got); err != nil || got != want {
				t.Errorf("%s: %s, %v, want %s", name, got, err, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Whoever was a user before there were roles: the network's first user owns it, the
// others are members, and all of them are people whom nothing narrows.
func TestUpgradedUsers(t *testing.T) {
	for schema := 1; schema < 9; schema++ {
		path := recorded(t, schema)
		script(t, path, `INSERT INTO users (network_id, user_id, name, owner, created_at) SELECT network_id, 'later', 'later', 0, 1 FROM networks`)
		err := open(t, path, Options{}).Read(t.Context(), func(r *Reader) error {
			n, err := r.Network()
			if err != nil {
				return err
			}
			users, err := r.Users(n.ID)
			owners := 0
			for _, u := range users {
				want := "member"
				if u.Owner {
					want = "owner"
					owners++
				}
				if u.Role != want || u.Kind != Person || len(u.Tags) > 0 {
					t.Errorf("schema %d: %+v", schema, u)
				}
			}
			if owners != 1 || len(users) < 2 {
				t.Errorf("schema %d: %d users, %d owners", schema, len(users), owners)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
