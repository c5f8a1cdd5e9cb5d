// A partner's program: posts an entry for each account that it reads, with a token that it renews.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/oauth"
	"google.golang.org/grpc/status"

	"example.com/partner/ledger" // what the API's .proto file makes
)

// The life that a token must still have when it is sent.
const ahead = time.Minute

// tokens is an oauth2.TokenSource that can drop a token.
type tokens struct {
	config  clientcredentials.Config
	mutex   sync.Mutex
	current *oauth2.Token
}

// Token returns the token at hand, or another if it soon expires.
func (t *tokens) Token() (*oauth2.Token, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.current != nil && time.Until(t.current.Expiry) > ahead {
		return t.current, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	fetched, err := t.config.Token(ctx)
	if err == nil {
		t.current = fetched
	} else if !t.current.Valid() {
		return nil, err
	}
	return t.current, nil
}

// drop forgets a token that the API has refused, unless another has replaced it already.
func (t *tokens) drop(refused *oauth2.Token) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.current == refused {
		t.current = nil
	}
}

// twice repeats a unary call once, with another token, if the API refuses the first one.
func (t *tokens) twice(ctx context.Context, method string, request, reply interface{}, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	token, err := t.Token()
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	err = invoke(ctx, method, request, reply, conn, options...)
	if status.Code(err) == codes.Unauthenticated {
		t.drop(token)
		err = invoke(ctx, method, request, reply, conn, options...)
	}
	return err
}

func main() {
	source := &tokens{config: clientcredentials.Config{
		TokenURL:     os.Getenv("TOKEN_URL"),
		ClientID:     os.Getenv("CLIENT_ID"),
		ClientSecret: os.Getenv("CLIENT_SECRET"),
		AuthStyle:    oauth2.AuthStyleInParams,
	}}
	conn, err := grpc.Dial(os.Getenv("API"),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: authorities()})),
		grpc.WithPerRPCCredentials(oauth.TokenSource{TokenSource: source}),
		grpc.WithUnaryInterceptor(source.twice))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	client := ledger.NewLedgerServiceClient(conn)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		draft := &ledger.EntryDraft{Account: lines.Text(), Amount: 1250, Currency: "EUR"}
		reply, err := client.PostEntry(ctx, &ledger.PostEntryRequest{Draft: draft})
		cancel()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("posted for", reply.Entry.OrgId)
	}
}

// authorities returns those of CA_FILE, for an API whose certificate no public authority has signed.
func authorities() *x509.CertPool {
	file := os.Getenv("CA_FILE")
	if file == "" {
		return nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return pool
}
