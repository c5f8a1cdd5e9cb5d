"""What .proto files declare: who may call, and which fields name an organization."""
