"""What a sweep is going to take: seconds measured here, memory, money, texts that leave."""
