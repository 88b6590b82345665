package policy

import (
	"reflect"
	"strings"
	"testing"
)

func TestTagOwners(t *testing.T) {
	p, err := Parse(`{"tagOwners": {"tag:camera": ["user:anna", "group:ops"], "tag:door": ["role:operator"], "tag:safe": []}}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tag, user    string
		groups       []string
		role         string
		owns, listed bool
	}{
		{"camera", "anna", nil, "member", true, true},
		{"camera", "ben", nil, "member", false, true},
		{"camera", "ben", []string{"x", "ops"}, "member", true, true},
		{"camera", "ops", []string{"anna"}, "operator", false, true},
		{"door", "operator", []string{"operator"}, "member", false, true},
		{"door", "ben", nil, "operator", true, true},
		{"safe", "", nil, "", false, true},
		{"lamp", "anna", nil, "operator", false, false},
	} {
		if owns, listed := p.OwnsTag(c.tag, c.user, c.groups, c.role); owns != c.owns || listed != c.listed {
			t.Errorf("%+v: %v, %v", c, owns, listed)
		}
	}
	list, err := p.Unknown(nowhere{})
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, r := range list {
		words = append(words, r.Text[:strings.Index(r.Text, ":")])
	}
	want := []string{`no device carries the tag "camera"`, `there is no person "anna"`, `there is no group "ops"`, `no device carries the tag "door"`, `no device carries the tag "safe"`}
	if !reflect.DeepEqual(words, want) {
		t.Errorf("unknown: %q\nwant %q", words, want)
	}
	after, err := Parse(`{"tagOwners": {"tag:camera": ["user:anna", "group:ops"], "tag:door": ["user:ben"], "tag:lamp": []}}`)
	if err != nil {
		t.Fatal(err)
	}
	changes := []TagChange{{"door", []string{"role:operator"}, []string{"user:ben"}}, {"lamp", []string{}, []string{}}, {"safe", []string{}, []string{}}}
	if got := DiffTagOwners(p, after); !reflect.DeepEqual(got, changes) {
		t.Errorf("changes %+v\nwant %+v", got, changes)
	}
	for text, want := range map[string]string{
		`{"tagOwners": []}`:                            "line 1, column 15: a list is not possible here; want an object",
		`{"tagOwners": {"camera": []}}`:                `line 1, column 16: tagOwners: "camera": want tag:NAME`,
		`{"tagOwners": {"tag:a b": []}}`:               `tagOwners: "tag:a b": want tag:NAME`,
		`{"tagOwners": {"tag:a": [], "tag:a": []}}`:    `line 1, column 29: the field "tag:a" occurs twice`,
		`{"tagOwners": {"tag:a": "user:x"}}`:           "a text is not possible here; want a list",
		`{"tagOwners": {"tag:a": ["tag:b"]}}`:          `line 1, column 26: tagOwners: "tag:b": want user:NAME, group:NAME, or role: with one of owner, admin`,
		`{"tagOwners": {"tag:a": ["role:king"]}}`:      `tagOwners: "role:king"`,
		`{"tagOwners": {"tag:a": ["*"]}}`:              `tagOwners: "*"`,
		`{"tagOwners": {"tag:a": ["user:*"]}}`:         `tagOwners: "user:*"`,
		`{"tagOwners": {"tag:a": ["user:\u001bx"]}}`:   `tagOwners: "user:\x1bx"`,
		`{"tagOwners": {}, "tagOwners": {"tag:a":[]}}`: `the field "tagOwners" occurs twice`,
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// nowhere is a network without anybody.
type nowhere struct{}

func (nowhere) User(string) (Subject, bool, error)   { return Subject{}, false, nil }
func (nowhere) Device(string) (Subject, bool, error) { return Subject{}, false, nil }
func (nowhere) Group(string) (bool, error)           { return false, nil }

func (nowhere) Tagged(string) ([]Subject, error) { return nil, nil }
