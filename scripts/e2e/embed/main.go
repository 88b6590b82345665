//go:build e2e

// Command embed is a program with its own node: it joins with the token in WEFT_TOKEN,
// serves a page on port 80 of its overlay address, prints "ready", and fetches the page
// at the URL in its second argument.
//
//	embed STATE-DIRECTORY URL
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"weft/netstack"
	"weft/overlay"
)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

func run(state, url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	stack, err := netstack.New(netstack.Config{})
	if err != nil {
		return err
	}
	node, err := overlay.New(overlay.Config{Net: stack, StateDir: state, Token: os.Getenv("WEFT_TOKEN"), Hostname: "embedded"})
	if err != nil {
		return err
	}
	defer node.Close()
	if err := node.Start(ctx); err != nil {
		return err
	}
	if err := node.Wait(ctx, ""); err != nil {
		return err
	}
	ln, err := node.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "served by a program from within\n")
	})}
	go srv.Serve(ln)
	defer srv.Close()
	fmt.Println("ready")

	client := &http.Client{Transport: &http.Transport{DialContext: node.Dial}}
	res, err := client.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(os.Stdout, res.Body); err != nil {
		return err
	}
	io.Copy(io.Discard, os.Stdin) // stay until stdin is closed
	return nil
}
