// Command openid is an OpenID provider for tests: the server of github.com/zitadel/oidc,
// with people from a file. It listens on loopback, prints its issuer, and runs until its
// standard input ends.
//
//	openid PEOPLE.json CLIENT SECRET ANSWER-URL
//
// PEOPLE.json has people by subject, in the form of storage.User; ANSWER-URL is where the
// client has answers sent.
package main

import (
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
)

func main() {
	if len(os.Args) != 5 {
		log.Fatal("usage: openid PEOPLE.json CLIENT SECRET ANSWER-URL")
	}
	users, err := storage.StoreFromFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	issuer := "http://" + l.Addr().String()
	clients := map[string]*storage.Client{os.Args[2]: storage.WebClient(os.Args[2], os.Args[3], os.Args[4])}
	quiet := slog.New(slog.DiscardHandler)
	go http.Serve(l, exampleop.SetupServer(issuer, storage.NewStorageWithClients(users, clients), quiet, false))
	fmt.Println(issuer)
	io.Copy(io.Discard, os.Stdin)
}
