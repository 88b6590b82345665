package coord

import (
	"context"

	"weft/coord/ops"
)

// Welcome is what the owner of a new network needs to begin. The link and the token work once.
type Welcome struct {
	ConsoleURL string // sign-in link
	Token      string // for the first device; it gets the tag "device"
}

// Welcome makes a link and a token if the network has no keys yet; otherwise it returns nil. So a
// server that was killed before it made the key does it at its next start.
func (s *Server) Welcome(ctx context.Context) (*Welcome, error) {
	keys, err := s.Keys(ctx, ops.Root(), 1)
	if err != nil || len(keys) > 0 {
		return nil, err
	}
	path, err := ops.Do(ctx, s.Service, ops.System(), ops.CreateLink{})
	if err != nil {
		return nil, err
	}
	key, err := ops.Do(ctx, s.Service, ops.System(), ops.CreateKey{Note: "first device", Tags: []string{"device"}})
	if err != nil {
		return nil, err
	}
	return &Welcome{ConsoleURL: s.ConsoleURL() + path, Token: key.Token}, nil
}
