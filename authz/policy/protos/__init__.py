"""What .proto files declare: who may call, and whose data requests are about."""
