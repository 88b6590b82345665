package overlay_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"weft/coord"
	"weft/coord/ops"
	"weft/netstack"
	"weft/overlay"
)

// A server and two nodes in one program: one listens, the other dials it by its
// name. Neither has a port open to the network it is on.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "weft-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	server, err := coord.NewServer(ctx, coord.ServerOptions{
		Options: ops.Options{Data: filepath.Join(dir, "server"), Create: true},
		Listen:  coord.Address{Addr: "127.0.0.1:0"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	start := func(name string, want ops.CreateKey) *overlay.Node {
		key, err := ops.Do(ctx, server.Service, ops.Root(), want)
		if err != nil {
			log.Fatal(err)
		}
		net, err := netstack.New(netstack.Config{})
		if err != nil {
			log.Fatal(err)
		}
		node, err := overlay.New(overlay.Config{
			Net: net, StateDir: filepath.Join(dir, name), Token: key.Token, Hostname: name,
		})
		if err != nil {
			log.Fatal(err)
		}
		if err := node.Start(ctx); err != nil {
			log.Fatal(err)
		}
		if err := node.Wait(ctx, ""); err != nil {
			log.Fatal(err)
		}
		return node
	}
	pi := start("kitchen-pi", ops.CreateKey{Tags: []string{"device"}})
	defer pi.Close()
	laptop := start("laptop", ops.CreateKey{})
	defer laptop.Close()

	l, err := pi.Listen("tcp", ":80")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		if c, err := l.Accept(); err == nil {
			io.WriteString(c, "hello from the kitchen")
			c.Close()
		}
	}()

	c, err := laptop.Dial(ctx, "tcp", "kitchen-pi:80")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	b, _ := io.ReadAll(c)
	fmt.Println(string(b))
	// Output: hello from the kitchen
}
